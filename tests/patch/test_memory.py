"""The memory that patches and fingerprints take: parts of tensors, whatever the size of a tensor."""

import json
import os
import struct
import subprocess
import sys

import pytest

MB = 1_000_000
_WEIGHTS = 150_000_000  # of one tensor, bfloat16: 300 MB
_TILE = 1 << 21  # weights
_PEAK = 180 * MB  # above what the imports take; the two folders hold 600 MB

_WORK = """
import re, sys
from pathlib import Path
import transformers
from wagle.model.weights import equal_weights, fingerprint
from wagle.patch.application import apply, undo
from wagle.patch.extraction import extract
from wagle.patch.verification import verify

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

home = Path(sys.argv[1])
base, result, out, back = (home / name for name in ("base", "result", "out", "back"))
before = peak()
extract(base, result, home / "patch", undo=home / "undo")
apply(base, home / "patch", out)
undo(result, home / "undo", back)
assert verify(base, out, patch=home / "patch").ok
assert equal_weights(back, base)
assert fingerprint(out) == fingerprint(result) != fingerprint(base)
print(peak() - before)
"""


def large_model(folder, *, changed):
    """One large tensor of zeros, which takes no room on the disk, and some values in a few tiles."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    places = {"dtype": "BF16", "shape": [_WEIGHTS // 1000, 1000], "data_offsets": [0, 2 * _WEIGHTS]}
    header = json.dumps({"embed.weight": places}).encode()
    header += b" " * (-len(header) % 8)
    tile = (b"\0\0" * 18 + b"\x80\x3f" * 2) * (_TILE // 20)  # every tenth weight is 1
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        start = file.tell()
        file.truncate(start + 2 * _WEIGHTS)
        for at in range(0, 2 * _WEIGHTS - 2 * _TILE, 16 * _TILE) if changed else ():
            file.seek(start + at)
            file.write(tile)
    return folder


@pytest.mark.skipif(not os.path.isfile("/proc/self/status"), reason="reads Linux's own peak memory")
def test_a_tensor_larger_than_the_memory_allowed_goes_through_every_step(tmp_path):
    large_model(tmp_path / "base", changed=False)
    large_model(tmp_path / "result", changed=True)
    command = [sys.executable, "-c", _WORK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < _PEAK
