"""Mutations of files for `benchmarks.fuzz`: of bytes, of binary fields, and of the values in structured text."""

import csv
import io
import json
import struct
import zlib
from typing import Any, Literal

import numpy as np

Kind = Literal["bytes", "mp4", "wav", "png", "csv", "json", "yaml", "safetensors"]

FIELDS = (0, 1, 2, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1)
"""What lengths, counts and sizes of 32 bits are set to."""

FOREIGN = (
    b"",
    b"\0" * 100,
    b"GIF89a" + bytes(30),
    b"PK\x03\x04" + bytes(60),
    b"\xff\xd8\xff\xe0" + bytes(40),
    b"%PDF-1.4\n",
)
"""Other formats under this name."""

VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 7.5, 1e-9, 1e308, -1e308, float("nan"), float("inf"), 2**31 - 1, 2**63, -(10**400)),
    *("", "x", "x" * 5000, "\0", "é\u202e\n", "../../etc/passwd", "9" * 5000, "nan", "1e999", "true"),
    *([], {}, [[]], [None], [0] * 300, {"": {}}, {"a": [1, {"b": "c"}]}, list(range(5)), ["x", 1, None]),
)
"""What a value is swapped for: other types, huge numbers, what is no number, names that lead elsewhere."""

_BOXES = tuple(b"mvhd mdhd tkhd stts stsz stco stsc ctts elst stsd avcC esds moov".split())
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
_YAML = (
    _BOMB,
    "a: &a {b: c}\n" + "m: {<<: *a}\n" * 500,
    "model: !!python/object/apply:os.system ['true']\n",
    "model: &m\n  inputs: *m\n",
    "[" * 100_000,
    "".join(" " * n + "key:\n" for n in range(400)),
    "? [a, b]\n: 1\n",
    "optim: {learning_rate: 0x" + "f" * 5000 + "}\n",
    "run: {devices: 1000000, nodes: 99}\n",
)


def mutate(data: bytes, kind: Kind, rng: np.random.Generator) -> bytes:
    """``data`` with one to three faults of its kind of file; the same ones for the same generator."""
    if rng.random() < 0.03:
        return FOREIGN[rng.integers(len(FOREIGN))]
    structured = {"csv": _csv, "json": _json, "yaml": _yaml, "safetensors": _safetensors, "png": _png}.get(kind)
    if structured is not None and rng.random() < 0.6:
        return structured(data, rng)
    for _ in range(rng.integers(1, 4)):
        data = _bytes(data, kind, rng)
    return data


def swap(value: Any, rng: np.random.Generator) -> Any:
    """A tree of lists and mappings in which one thing is replaced, removed, added or repeated."""
    places = list(_places(value))
    if not places:
        return VALUES[rng.integers(len(VALUES))]
    holder, key = places[rng.integers(len(places))]
    deed = rng.integers(6)
    if deed == 0:
        del holder[key]
    elif deed == 1 and isinstance(holder, dict):
        holder[str(VALUES[rng.integers(len(VALUES))])[:50]] = holder[key]
    elif deed == 1:
        holder.insert(key, holder[key])
    elif deed == 2 and type(holder[key]) in (int, float):
        holder[key] = type(holder[key])(holder[key] * (0.5, 1.01, 2)[rng.integers(3)])
    else:
        holder[key] = VALUES[rng.integers(len(VALUES))]
    return value


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(pairs):
        yield value, key
        yield from _places(item)


def _bytes(data: bytes, kind: Kind, rng: np.random.Generator) -> bytes:
    if len(data) < 8:
        return data + rng.bytes(8)
    at = _place(data, kind, rng)
    length = int(rng.integers(1, 64))
    deed = rng.integers(8)
    if deed == 0:
        return data[:at]
    if deed == 1:
        return data[:at] + rng.bytes(length) + data[at:]
    if deed == 2:
        return data[:at] + data[at + length :]
    if deed == 3:
        return data[: at + length] + data[at:]
    if deed <= 5:
        order = ">" if rng.random() < 0.5 else "<"
        field = struct.pack(order + "I", FIELDS[rng.integers(len(FIELDS))])
        return data[:at] + field + data[at + 4 :]
    flipped = bytearray(data)
    for place in (at, *(min(len(data) - 1, at + int(n)) for n in rng.integers(0, 200, 3))):
        flipped[place] ^= 1 << int(rng.integers(8))
    return bytes(flipped)


def _place(data: bytes, kind: Kind, rng: np.random.Generator) -> int:
    """Somewhere; mostly where a format keeps its lengths and counts."""
    if rng.random() < 0.7:
        if kind == "mp4" and (found := [place for box in _BOXES if (place := data.find(box)) >= 0]):
            return min(len(data) - 4, max(0, found[rng.integers(len(found))] - 4 + 4 * int(rng.integers(0, 12))))
        if kind in ("wav", "png", "safetensors"):
            return int(rng.integers(0, min(len(data) - 4, 60)))
    return int(rng.integers(0, len(data) - 4))


def _png(data: bytes, rng: np.random.Generator) -> bytes:
    """Chunks changed, repeated, moved or dropped, with checksums that are right again."""
    chunks, place = [], 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    deed, at = rng.integers(6), int(rng.integers(len(chunks)))
    name, body = chunks[at]
    if deed <= 1:  # width, height, bits, colour
        head = bytearray(chunks[0][1])
        sizes = (0, 1, 63, 65, 4000, 13_000, 50_000, 2**31 - 1)
        for field in (0, 4)[: 1 + int(rng.integers(2))]:
            head[field : field + 4] = struct.pack(">I", sizes[rng.integers(len(sizes))])
        if deed:
            head[8 + int(rng.integers(5))] = int(rng.integers(0, 17))
        chunks[0] = (b"IHDR", bytes(head))
    elif deed == 2:
        chunks.insert(at, chunks[int(rng.integers(len(chunks)))])
    elif deed == 3:
        chunks.insert(1, (b"zTXt", b"x\0\0" + zlib.compress(bytes(2**26))))
    elif deed == 4:
        chunks[at] = (name, _bytes(body, "bytes", rng))
    else:
        del chunks[at]
    framed = (struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    return data[:8] + b"".join(framed)


def _text(text: str, rng: np.random.Generator) -> bytes:
    """Text in another encoding, or with something within it that parsers stumble over."""
    deed = rng.integers(4)
    if deed == 0:
        return text.replace("o", "ö").encode(("cp1252", "utf-16", "utf-16-le", "utf-8-sig")[rng.integers(4)])
    at = int(rng.integers(len(text) + 1))
    within = ("[" * 100_000, "9" * 5000, "\0", '"', "{" * 2000, "\r", "\ufeff", "x" * 200_000)[rng.integers(8)]
    return (text[:at] + within + text[at if deed == 1 else at + 1 :]).encode()


def _csv(data: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.4:
        return _text(data.decode(), rng)
    rows: Any = list(csv.reader(io.StringIO(data.decode())))
    for _ in range(rng.integers(1, 3)):
        rows = swap(rows, rng)
    target = io.StringIO()
    plain = [row if isinstance(row, list) else [row] for row in (rows if isinstance(rows, list) else [rows])]
    csv.writer(target, escapechar="\\").writerows([[str(cell) for cell in row] for row in plain])
    return target.getvalue().encode("utf-8", "replace")


def _json(data: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.25:
        return _text(data.decode(), rng)
    lines = data.decode().splitlines() if data.count(b"\n{") else [data.decode()]  # one value a line, or one in all
    at = int(rng.integers(len(lines)))
    value = json.loads(lines[at])
    for _ in range(rng.integers(1, 3)):
        value = swap(value, rng)
    return "\n".join([*lines[:at], json.dumps(value), *lines[at + 1 :]]).encode()


def _yaml(data: bytes, rng: np.random.Generator) -> bytes:
    import yaml

    deed = rng.random()
    if deed < 0.2:
        return _text(data.decode(), rng)
    if deed < 0.4:
        bomb = _YAML[rng.integers(len(_YAML))]
        return bomb.encode() if rng.random() < 0.5 else data + b"\n" + bomb.encode()
    value = yaml.safe_load(data)
    for _ in range(rng.integers(1, 3)):
        value = swap(value, rng)
    return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace")


def _safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """A header with other shapes, types and places, or weights that are no numbers."""
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.random() < 0.3:
        at = 4 * int(rng.integers(0, max(1, len(body) // 4)))
        word = struct.pack("<f", (float("nan"), float("inf"), 3e38, -1e30, 1e-45)[rng.integers(5)])
        body = body[:at] + word * int(rng.integers(1, 20)) + body[at:]
        body = body[: len(data) - 8 - length]
    else:
        names = list(header)
        name = names[rng.integers(len(names))]
        header[name] = swap(header[name], rng) if rng.random() < 0.8 else VALUES[rng.integers(len(VALUES))]
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body
