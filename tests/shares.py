"""What a process of its own does in a test: here, where a spawned interpreter can import it by name."""

import os

import torch

from avseg.evaluation.metrics import FScore, MeanJaccard


def score_a_share(rank: int, store: str, results: str) -> None:
    """Score this rank's cases of ``RESULTS/cases.pt`` and write what both processes together make of them."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    jaccard, f_score = MeanJaccard(), FScore()
    for logits, masks in torch.load(f"{results}/cases.pt")[rank]:
        jaccard.update(logits, masks)
        f_score.update(logits, masks)
    torch.save([jaccard.compute(), f_score.compute()], f"{results}/{rank}.pt")
    torch.distributed.destroy_process_group()
