"""Models with a patch between them, made by ``extract``."""

import pytest

from tests.patch.models import changed_at, folder, weights
from wagle.patch.extraction import extract


@pytest.fixture
def trio(tmp_path):
    """Base, result with five changed weights, and their patch."""
    old = weights()
    base = folder(tmp_path / "base", old)
    new = changed_at(old, {"embed.weight": [0, 3, 799], "layers.0.up.weight": [7, 300]})
    result = folder(tmp_path / "result", new)
    extract(base, result, tmp_path / "p.safetensors")
    return base, result, tmp_path / "p.safetensors"


@pytest.fixture
def undone(tmp_path):
    """Base, result with changes of every encoding, patch and undo file."""
    old = weights()
    where = {
        "embed.weight": [i for i in range(800) if i % 7 in (0, 2)],
        "layers.0.up.weight": list(range(0, 512, 2)),
        "norm.weight": list(range(16)),
    }
    base = folder(tmp_path / "base", old, shards=2)
    result = folder(tmp_path / "result", changed_at(old, where), shards=2)
    extract(base, result, tmp_path / "p", undo=tmp_path / "private" / "u")
    return base, result, tmp_path / "p", tmp_path / "private" / "u"
