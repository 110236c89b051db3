"""Checkpoints that are whole or not there."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from avseg.files import whole_file


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the checkpoint, where Lightning writes to the system's temporary folder, which may be small.

    A killed run leaves nothing there, and what it left beside the checkpoint goes with the next one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to the local file ``path``."""
        with whole_file(Path(path)) as temporary:
            torch.save(checkpoint, temporary)
