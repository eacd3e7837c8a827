import pytest

from tests.attribution.scoring.made import make_store
from wagle.attribution.scoring import candidates


@pytest.fixture
def store():
    return make_store()


@pytest.fixture(params=[1, 5, 1 << 19])
def chunk(request, monkeypatch):
    monkeypatch.setattr(candidates, "_CHUNK", request.param)
