"""Embeddings of every video's sound by a frozen audio encoder, computed once and stored.

The encoder is handed in: data knows no models.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from avseg.data.avsbench import FRAMES
from avseg.data.frames import Frame
from avseg.data.rows import read_log_mel
from avseg.errors import AvsegError
from avseg.files import whole_file
from avseg.progress import Progress
from avseg.reading import parse_json

FORMAT_VERSION = 2
"""Part of every key: raise it when what is stored changes its meaning."""

_BATCH = 32  # videos at a time


def audio_embeddings(
    frames: Iterable[Frame],
    encoder: nn.Module,
    fingerprint: str,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Embeddings of the log-mel examples of each video (five), or of each of MS3's distant frames (one).

    They are stored in ``ROOT/.avseg/embeddings/`` (of distant frames below their own folder) and computed only for
    those that are new there, or whose log-mel file has another size or time of change, or for another ``fingerprint``.

    Args:
        frames: Frames of one data set; each video is embedded once.
        encoder: Frozen: ``(N, 1, 96, 64)`` -> ``(N, 128)``. It is put in eval mode and on ``device`` for the while.
        fingerprint: Of the encoder's weights, such as a hash of them.
        device: Where the encoder computes.
        progress: Called with the videos done and their number, where any are to be computed.

    Returns:
        ``(5, 128)`` or ``(1, 128)`` float32 on the CPU, by ``Frame.key``.

    Raises:
        AvsegError: a log-mel file is missing or faulty.
    """
    videos = {frame.key: frame for frame in frames}
    data = next(iter(videos.values())).data
    paths = {key: frame.log_mel for key, frame in videos.items()}
    count = 1 if data.name == "distant" else FRAMES
    file = data.embeddings / f"{data.name}-{_digest(FORMAT_VERSION, fingerprint)[:16]}.safetensors"
    stored, keys = _read(file, count)
    wanted = {name: _file_key(path) for name, path in paths.items()}
    missing = [name for name in paths if name not in stored or keys.get(name) != wanted[name]]
    was_training, home = encoder.training, next((p.device for p in encoder.parameters()), torch.device("cpu"))
    encoder.eval()
    try:
        if missing:
            encoder.to(device)
        for start in range(0, len(missing), _BATCH):
            names = missing[start : start + _BATCH]
            examples = torch.stack([_examples(paths[name], count) for name in names])
            with torch.inference_mode():
                embedded = encoder(examples.flatten(0, 1).to(device)).float().cpu()
            for name, value in zip(names, embedded.unflatten(0, (len(names), count)), strict=True):
                stored[name], keys[name] = value.clone(), wanted[name]
            if progress is not None:
                progress(start + len(names), len(missing))
    finally:
        encoder.to(home).train(was_training)
    if missing:
        _write(file, stored, keys)
    return {name: stored[name] for name in paths}


def _examples(path: Path, count: int) -> Tensor:
    examples = read_log_mel(path)
    rows = [min(i, len(examples) - 1) for i in range(count)]
    return examples[rows]


def _file_key(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        raise AvsegError(f"{path} does not exist: run `avseg data prepare` to make it.") from None
    return _digest(path.name, status.st_size, status.st_mtime_ns)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(path: Path, count: int) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Stored embeddings and the keys they were computed for; nothing from a file that isn't whole."""
    if not path.is_file():
        return {}, {}
    try:
        with safe_open(str(path), framework="pt") as file:
            keys = parse_json((file.metadata() or {}).get("keys", "{}"))
            stored = {name: file.get_tensor(name) for name in keys}
    except (SafetensorError, OSError, ValueError, TypeError):
        return {}, {}
    whole = all(t.dtype == torch.float32 and t.shape == (count, 128) and t.isfinite().all() for t in stored.values())
    return (stored, keys) if whole and isinstance(keys, dict) else ({}, {})


def _write(path: Path, stored: Mapping[str, Tensor], keys: Mapping[str, str]) -> None:
    try:
        with whole_file(path) as temporary:
            save_file(dict(stored), str(temporary), metadata={"keys": json.dumps(dict(keys))})
    except OSError:
        # A read-only data set: the embeddings are computed again next time.
        return
