"""Loads many damaged and malicious models in one process, and tells what became of each: ``python hostile.py FOLDER``.

Run by ``test_hostile.py``, with a limit of time for each, the network watched, and the process's memory at the end.
"""

import copy
import json
import random
import re
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECONDS = 20
STRANGE = (
    None, True, -1, 0, 1, 3, 10**6, 10**9, 10**30, 10**4299, -0.5, 1e300, float("nan"), float("inf"), "", "x", "a/b",
    "x" * 100_000, [], [1], [10**9] * 4, [[]] * 1000, {}, {"a": {"b": []}}, [1, 2, 3, 4], ["1"] * 4,
)  # fmt: skip
KERNEL = "nobody/kernel"
KEYS: dict[str, Any] = {
    "attn_implementation": KERNEL, "_attn_implementation": KERNEL, "_attn_implementation_internal": KERNEL,
    "experts_implementation": KERNEL, "auto_map": {"AutoBackbone": "nobody/code--module.Class"},
    "trust_remote_code": True, "_name_or_path": "nobody/model", "use_kernels": True, "dtype": "nobody/dtype",
    "quantization_config": {"quant_method": "gptq"}, "num_labels": 10**9, "backbone": "nobody/backbone",
    "use_pretrained_backbone": True, "use_timm_backbone": True, "text_config": {"model_type": "llama"},
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to every value within a JSON value."""
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def configs(whole: dict[str, Any], seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Damaged forms of a ``config.json``."""
    rng = random.Random(seed)
    spots = [path for path in places(whole) if path]
    for number in range(count):
        value, path, strange = copy.deepcopy(whole), rng.choice(spots), rng.choice(STRANGE)
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = strange
        sys.set_int_max_str_digits(0)
        text = json.dumps(value)
        sys.set_int_max_str_digits(4300)
        yield f"{number}: {path} = {strange!r:.30}" if strange != 10**4299 else f"{number}: {path} long", text.encode()
    text = json.dumps(whole)
    yield "deep", b'{"format_version": 1, "base": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    yield "twice", text.replace('{"format_version": 1', '{"format_version": 1, "format_version": 1', 1).encode()
    yield "latin", text.replace("tpavi", "tpàvi").encode("latin-1")
    yield "long", b'{"format_version": 1, "x": "' + b"x" * 40_000_000 + b'"}'
    for _ in range(count // 4):
        data = bytearray(text.encode())
        for _ in range(rng.randint(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        yield "bytes", bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
    if whole["image_encoder_config"]:
        for key, strange in KEYS.items():
            value = copy.deepcopy(whole)
            value["image_encoder_config"][key] = strange
            yield f"+{key}", json.dumps(value).encode()
        for kind in ("timm_backbone", "swin", "bert", "llama", "maskformer-swin", "hiera", "vitdet", 3, None):
            yield f"kind {kind}", json.dumps({**whole, "image_encoder_config": {"model_type": kind}}).encode()
        own = {"model_type": "swin", "window_size": 300, "image_size": 9600, "embed_dim": 4}
        yield "window", json.dumps({**whole, "image_encoder_config": own}).encode()
    for name in ("nobody/nothing", "/nobody/nothing", "timm/resnet50"):
        for known in (None, {}):
            yield name, json.dumps({**whole, "image_encoder": name, "image_encoder_config": known}).encode()


def weights(data: bytes, seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Damaged forms of a ``model.safetensors``."""
    rng = random.Random(seed)
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    for number in range(count):
        other = copy.deepcopy(header)
        entry = other[rng.choice(names)]
        key = rng.choice(("dtype", "shape", "data_offsets"))
        entry[key] = rng.choice(
            [
                [0, 10**12],
                [10**12, 10**12 + 4],
                [5, 1],
                "F64",
                "I8",
                "BOOL",
                "C64",
                "F8_E4M3",
                [10**9, 10**9],
                [],
                -1,
                None,
            ]
        )
        head = json.dumps(other).encode()
        yield f"{number}: {key}", struct.pack("<Q", len(head)) + head + body
    for lie in (0, 1, 2**32, 2**40, 2**63, 2**64 - 1):
        yield f"length {lie}", struct.pack("<Q", lie) + data[8:]
    many = json.dumps(
        {f"x{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(200_000)}
    ).encode()
    yield "many", struct.pack("<Q", len(many)) + many
    for _ in range(count // 4):
        yield "cut", data[: rng.randrange(len(data))]


def main(folder: Path) -> None:
    asked: list[str] = []

    def watch(*given: Any, **more: Any) -> Any:
        asked.append(repr(given)[:100])
        raise OSError("the network is watched")

    socket.socket.connect = socket.getaddrinfo = socket.create_connection = watch  # type: ignore[assignment, misc]

    def late(*_: Any) -> None:
        raise BaseException("took too long")

    from avseg.errors import AvsegError
    from avseg.models import load

    signal.signal(signal.SIGALRM, late)
    counts = {"loaded": 0, "refused": 0}
    wrong: list[str] = []
    for model in sorted(folder.iterdir()):
        config, tensors = model / "config.json", model / "model.safetensors"
        before, data = config.read_bytes(), tensors.read_bytes()
        damaged = [(config, configs(json.loads(before), 1, 60)), (tensors, weights(data, 2, 30))]
        for file, name, content in ((file, *case) for file, cases in damaged for case in cases):
            file.write_bytes(content)
            signal.alarm(SECONDS)
            try:
                load(model)
                counts["loaded"] += 1
            except AvsegError as error:
                counts["refused"] += 1
                if len(str(error)) > 2000 or "\n" in str(error):
                    wrong.append(f"{name}: says {str(error)[:300]}")
            except BaseException as error:
                wrong.append(f"{model.name}/{file.name} {name}: {type(error).__name__} {str(error)[:200]}")
            signal.alarm(0)
            config.write_bytes(before)
            tensors.write_bytes(data)
        load(model)
    # Not ru_maxrss, which begins with what the process that started this one had.
    mebibytes = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024  # type: ignore[index]
    print(json.dumps({**counts, "wrong": wrong, "asked": asked, "mebibytes": mebibytes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
