"""Damaged and odd variants of a file: what disks, downloads, editors and other tools leave."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml

ODD_VALUES = (
    *(None, True, -1, 0, 2**70, 1.5, float("nan"), "", "x", "\ud800", "../../x", "a" * 5000),
    *([], {}, [None], [[]], {"a": None}, "1", [1, "a"], ["dog", "dog"]),
)
"""What other tools write where another kind of value is meant."""
OTHER_FILES = (
    b"",
    b"\0" * 64,
    b"\xff\xd8\xff\xe0 no photograph",
    b"PK\x03\x04 no archive",
    b"\x1f\x8b\x08\x00 no archive",
    b"<!DOCTYPE html><html><body>404</body></html>",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    b"[" * 3000,
    b"null",
    b"{}",
    b"[]",
    b"\n",
)


def damaged(data: bytes, name: str, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """So many variants of a file's bytes, each with what was done to it; the same for one seed.

    Args:
        data: of a file that is right.
        name: of the file; json and yaml get odd values too.
        count: variants to make.
        seed: of the choices.
    """
    rng = np.random.default_rng(seed)
    ways = [_cut, _flip, _zeros, _twice, _lost, _other, _encoded]
    if name.endswith((".json", ".jsonl", ".yaml")):
        ways += [_odd_value] * 5
    for at in range(count):
        way = ways[int(rng.integers(len(ways)))]
        yield f"{name} {at} {way.__name__.strip('_')}", way(data, name, rng)


def _cut(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _flip(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    content = bytearray(data)
    for at in rng.integers(len(data), size=int(rng.integers(1, 9))):
        content[at] ^= int(rng.integers(1, 256))
    return bytes(content)


def _zeros(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 513))
    return data[:at] + b"\0" * length + data[at + length :]


def _twice(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    start, end = sorted(int(at) for at in rng.integers(len(data) + 1, size=2))
    return data[:end] + data[start:]


def _lost(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(data)))
    return data[:start] + data[start + int(rng.integers(1, 65)) :]


def _other(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    return OTHER_FILES[int(rng.integers(len(OTHER_FILES)))]


def _encoded(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    if b"\0" in data:
        return data[::-1]
    text = data.decode("latin-1")
    encoding = ("utf-16", "utf-32", "utf-8-sig", "utf-7")[int(rng.integers(4))]
    return text.replace("\n", ("\r", "\r\n", "\n")[int(rng.integers(3))]).encode(encoding)


def _odd_value(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    """One value, or key, of a document is gone or another."""
    if name.endswith(".jsonl"):
        lines = data.splitlines(keepends=True)
        at = int(rng.integers(len(lines)))
        lines[at] = _odd_value(lines[at], ".json", rng) + b"\n"
        return b"".join(lines)
    is_json = name.endswith(".json")
    content = json.loads(data) if is_json else yaml.safe_load(data)
    places = list(_places(content))
    holder, key = places[int(rng.integers(len(places)))]
    odd = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    if isinstance(holder, dict) and rng.integers(4) == 0:
        del holder[key]
    else:
        holder[key] = odd
    text = json.dumps(content) if is_json else yaml.safe_dump(content, allow_unicode=False)
    return text.encode()


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder and key of a document, from the outside in."""
    keys = content if isinstance(content, dict) else range(len(content))
    for key in keys:
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _places(content[key])
