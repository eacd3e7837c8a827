"""Mutations of files: of their bytes, of their JSON values, of the headers of tensor files.

Every one is a pure function of a random generator and of the file's content.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

DEEP = 3000  # levels
_RAW = {  # what JSON cannot say with a value: text that takes the place of a marked text
    "@nan@": "NaN",
    "@inf@": "-Infinity",
    "@large@": "1e999",
    "@digits@": "9" * 5000,
    "@deep@": "[" * DEEP + "]" * DEEP,
    "@open@": '{"a":' * DEEP,
    "@nested@": "[" * 90 + "]" * 90,
    "@half@": '"\\ud800"',
    "@twice@": '{"a": 1, "a": [2]}',
}
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**64), 10**290, 10**18),
    *(0.5, -0.5, 1e308, -1e308, 5e-324, 1e-9, 3.0),
    *("", "x", "0", "-1", "a\nb", "é\u2028", "x" * 5000, "../../x", "/etc/passwd", "\0", "a.b"),
    *([], {}, [[]], [None], [0], ["x"], {"a": 1}, {"": None}, list(range(60)), [[0, 1]] * 5),
    *_RAW,
)
_TOKENS = (
    *(b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r\n", b"\r"),
    *(b'"', b"'", b",", b":", b"[", b"]", b"{", b"}", b"\\", b"\\u0000", b"\\ud800", b"e999"),
    *(b"NaN", b"null", b"true", b"-", b"0", b"9" * 400, b"9" * 5000, b"[" * 4000, b"a" * 5000),
    *(b"&a ", b"*a", b"<<: *a", b"!!int ", b"!!python/name:os.system ", b"? ", b"- ", b"|\n"),
    *(b"--- ", b"%YAML 9.9\n", b"!!timestamp ", b"0x" + b"f" * 400, b".inf", b".nan", b"~", b"#"),
)


def mutate_bytes(rng: Random, data: bytes) -> bytes:
    """Flip, cut, insert, repeat, remove or overwrite, one to four times."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_ON_BYTES)(rng, data)
    return data


def _span(rng: Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 8, 40, 400)))


def _flip(rng: Random, data: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20)) if made else 0):
        made[rng.randrange(len(made))] ^= 1 << rng.randrange(8)
    return bytes(made)


def _cut(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.8 else data[at:]


def _insert(rng: Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_TOKENS) + data[at:]


def _repeat(rng: Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 2, 50)) + data[end:]


def _remove(rng: Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def _overwrite(rng: Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _move(rng: Random, data: bytes) -> bytes:
    start, end = _span(rng, data)
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[start:end] + data[at:]


_ON_BYTES: Sequence[Callable[[Random, bytes], bytes]] = (
    *(_flip, _flip, _cut, _insert, _insert, _repeat, _remove, _overwrite, _move),
)


# ---------------------------------------------------------------------------------------------
# JSON values


def mutate_value(rng: Random, value: Any) -> Any:
    """A value with one to four parts removed, repeated, renamed, exchanged or of another type.

    Args:
        rng: the source of every choice.
        value: a JSON value, which is changed in place.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = _way_down(rng, value)
        if not places:
            return _drawn(rng)
        container, key = places[-1]
        _change(rng, container, key, value)
    return value


def _way_down(rng: Random, value: Any) -> list[tuple[Any, Any]]:
    """Containers and keys, from the whole to a part that is chosen at random."""
    places: list[tuple[Any, Any]] = []
    while isinstance(value, dict | list) and value and (not places or rng.random() < 0.8):
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        places.append((value, key))
        value = value[key]
    return places


def _change(rng: Random, container: Any, key: Any, whole: Any) -> None:
    how = rng.choice(("retype", "retype", "retype", "remove", "rename", "other", "grow", "nudge"))
    if how == "remove":
        del container[key]
    elif how == "rename" and isinstance(container, dict):
        container[rng.choice(("", "x", "a" * 300, key + "x", "..", "a/b"))] = container.pop(key)
    elif how == "other":
        places = _way_down(rng, whole)
        other = places[-1][0][places[-1][1]] if places else None
        container[key] = json.loads(json.dumps(other))
    elif how == "grow" and isinstance(container, list):
        container.extend(json.loads(json.dumps(container[key : key + 1])) * rng.choice((1, 40)))
    elif how == "nudge" and type(container[key]) in (int, float):
        container[key] = rng.choice((-1, 0.5, 2, 1000)) * container[key] + rng.choice((0, 1))
    elif how == "nudge" and isinstance(container[key], str):
        container[key] = _nudged(rng, container[key])
    else:
        container[key] = _drawn(rng)


def _drawn(rng: Random) -> Any:
    """One of VALUES; a copy, since it may be changed in its turn."""
    return json.loads(json.dumps(rng.choice(VALUES)))


def _nudged(rng: Random, text: str) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(("", "x", "0", "\n", " ", "/")) + text[at + rng.randrange(2) :]


def json_text(value: Any, *, indent: int | None = None) -> str:
    """A value as JSON; marks become what no JSON value can hold."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if "@" in text:
        for mark, raw in _RAW.items():
            text = text.replace(f'"{mark}"', raw)
    return text


def mutate_json(rng: Random, text: str) -> bytes:
    """A JSON text with parts of its value changed, or in one case of four its bytes."""
    if rng.random() < 0.25:
        return mutate_bytes(rng, text.encode())
    return json_text(mutate_value(rng, json.loads(text))).encode("utf-8", "surrogatepass")


def mutate_yaml(rng: Random, text: str) -> bytes:
    """YAML changed as text or, since JSON is YAML, as a value."""
    import yaml

    if rng.random() < 0.6:
        return mutate_bytes(rng, text.encode())
    return json_text(mutate_value(rng, yaml.safe_load(text))).encode("utf-8", "surrogatepass")


def mutate_lines(rng: Random, text: str) -> bytes:
    """JSON lines of which some are changed, torn, repeated or moved."""
    if rng.random() < 0.2:
        return mutate_bytes(rng, text.encode())
    lines = [line.encode() for line in text.splitlines()]
    for _ in range(rng.choice((1, 2, 3))):
        at = rng.randrange(len(lines))
        how = rng.random()
        if how < 0.7:
            lines[at] = mutate_json(rng, rng.choice(text.splitlines()))
        elif how < 0.8:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        else:
            lines.insert(rng.randrange(len(lines)), lines[at])
    return b"\n".join(lines) + b"\n" * rng.randrange(2)


# ---------------------------------------------------------------------------------------------
# Tensor files


def split_tensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the rest of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join_tensors(header: str, rest: bytes) -> bytes:
    """A safetensors file of a header, whatever it says, and the rest."""
    text = header.encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + rest


def mutate_tensors(rng: Random, data: bytes, key: str = "wagle") -> bytes:
    """A safetensors file with its bytes, its header, its own metadata or its data changed."""
    how = rng.random()
    if how < 0.2:
        return mutate_bytes(rng, data)
    header, rest = split_tensors(data)
    if how < 0.6:
        told = json.loads(header["__metadata__"][key])
        header["__metadata__"][key] = json_text(mutate_value(rng, told))
    elif how < 0.8:
        header = mutate_value(rng, header)
    else:
        rest = mutate_bytes(rng, rest)
    if how < 0.7 and rng.random() < 0.3 and isinstance(header, dict):
        _reshape(rng, header)
    return join_tensors(json_text(header), rest)


def _reshape(rng: Random, header: dict[str, Any]) -> None:
    """Give a tensor another type or shape of as many bytes, so that the file itself is sound."""
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return
    entry = header[rng.choice(names)]
    if not isinstance(entry, dict) or not isinstance(entry.get("data_offsets"), list):
        return
    offsets = entry["data_offsets"]
    if len(offsets) == 2 and all(type(one) is int for one in offsets):
        size = offsets[1] - offsets[0]
        entry["dtype"], entry["shape"] = rng.choice(
            (
                ("U8", [size]),
                ("I8", [size]),
                ("U8", [1, size]),
                ("F16", [size // 2]),
                ("BOOL", [size]),
            )
        )
