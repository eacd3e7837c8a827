"""Mutants of binary files: what a stranger, or a bad disk, may have made of them.

Each is drawn by its number, so one that finds a fault is found again by it.
"""

from __future__ import annotations

import copy
import json
import random
import resource

import torch

from wagle.system.errors import WagleError
from wagle.system.files.checked import save_checked
from wagle.system.files.tensors import TensorFile

ODD = [
    None,
    True,
    0,
    -1,
    3,
    1 << 62,
    10**40,
    0.5,
    1e300,
    float("inf"),
    float("nan"),
    "",
    "x" * 3000,
    "\ud800",
    [],
    {},
    [5],
    [[]],
    [[[[[]]]]],
    [None, None],
    [1 << 59, 1 << 59],
    {"a": {}},
]


def flipped(data: bytes, number: int) -> bytes:
    """The bytes of a file with some changed, lost or repeated."""
    draw = random.Random(number)
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 8])):
        at = (
            draw.randrange(len(found))
            if draw.random() < 0.5
            else draw.randrange(min(400, len(found)))
        )
        match draw.randrange(4):
            case 0:
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                found[at] = draw.choice(b'\0\xff[]{}",:0129aZ')
            case 2:
                del found[at : at + draw.choice([1, 2, 9, 1000])]
            case 3:
                found[at:at] = found[at : at + draw.choice([1, 3, 40])]
        if not found:
            return b""
    return bytes(found)


def changed(value, number: int):
    """A JSON value with one to three of its parts replaced, removed, added or repeated."""
    draw = random.Random(number)
    value = copy.deepcopy(value)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        place, key = _place(value, draw)
        if place is None:
            return draw.choice(ODD)
        match draw.randrange(4):
            case 0 | 1:
                place[key] = copy.deepcopy(draw.choice(ODD))
            case 2:
                del place[key]
            case 3 if isinstance(place, list):
                place.insert(key, copy.deepcopy(place[key]))
            case _:
                place[draw.choice(["a", "names", "x" * 90])] = copy.deepcopy(draw.choice(ODD))
    return value


def _place(value, draw):
    """A container somewhere in a value, and one of its keys."""
    place, key, at = None, None, value
    while isinstance(at, dict | list) and at and (place is None or draw.random() < 0.7):
        key = draw.choice(list(at)) if isinstance(at, dict) else draw.randrange(len(at))
        place, at = at, at[key]
    return place, key


def resealed(path, tensors, metadata, kind: str, number: int) -> None:
    """Write a checked file of other content, with the right checksum."""
    draw = random.Random(number)
    tensors, metadata = dict(tensors), copy.deepcopy(metadata)
    if draw.random() < 0.6:
        metadata = changed(metadata, number)
        metadata = metadata if isinstance(metadata, dict) else {}
    if draw.random() < 0.5 and tensors:
        name = draw.choice(sorted(tensors))
        tensor = tensors[name]
        match draw.randrange(6):
            case 0:
                tensors[name] = tensor.reshape(-1)[: draw.randrange(4)]
            case 1:
                tensors[name] = torch.randint(0, 256, tensor.shape).to(tensor.dtype)
            case 2:
                tensors[name] = tensor.to(draw.choice([torch.int64, torch.float32, torch.bool]))
            case 3:
                tensors[name] = tensor.reshape(1, -1)
            case 4:
                del tensors[name]
            case 5:
                tensors["more"] = tensor
    save_checked(path, tensors, metadata, kind)


def parts(path):
    """The tensors and the metadata of a checked file."""
    with TensorFile(path) as file:
        tensors = {name: file.read_all(name) for name in file.names}
        metadata = {k: v for k, v in file.metadata.items() if k not in ("format", "checksum")}
    return tensors, json.loads(json.dumps(metadata))


def survives(call, number: int) -> bool:
    """Whether a call accepts a mutant; it may refuse it in one line, and take 1 GB at most."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        call()
        accepted = True
    except WagleError as error:
        if "\n" in str(error):
            raise AssertionError(f"mutant {number}: {error}") from error
        accepted = False
    except Exception as error:
        raise AssertionError(f"mutant {number}: {type(error).__name__}: {error}") from error
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 1 << 20, f"mutant {number} took {grown} KiB"
    return accepted
