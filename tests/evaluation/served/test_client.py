"""Requests over HTTP: retries, the key, and one line for what is wrong."""

from __future__ import annotations

import pytest
from bench.completions import Completions, served

from tests.conftest import make_model, make_tokenizer
from wagle.evaluation.served.client import Client, Refused
from wagle.system.errors import WagleError


@pytest.fixture(scope="module")
def make():
    model, tokenizer = make_model("llama-tied"), make_tokenizer()
    return lambda **settings: Completions(model, tokenizer, **settings)


def test_a_busy_server_is_asked_again(make):
    with served(make(broken=2)) as address:
        assert Client(address, tries=3, pause=0.01).get("/models")["data"] == [{"id": "tiny"}]
    late = pytest.raises(WagleError, match="answered 503: loading")
    with served(make(broken=3)) as address, late:
        Client(address, tries=3, pause=0.01).get("/models")


def test_a_server_that_is_not_there_is_one_line():
    with pytest.raises(WagleError, match="cannot be reached") as caught:
        Client("http://127.0.0.1:9/v1", tries=2, pause=0.01).get("/models")
    assert "\n" not in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_never_told(make, monkeypatch):
    with served(make(key="right")) as address:
        monkeypatch.setenv("WAGLE_API_KEY", "right")
        assert Client(address).get("/models")
        monkeypatch.setenv("WAGLE_API_KEY", "wrong-and-secret")
        with pytest.raises(Refused) as caught:
            Client(address).get("/models")
    assert caught.value.status == 401
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(Client(address))


def test_what_a_server_refuses_is_not_tried_again(make):
    told = make(logprobs=False)
    with served(told) as address:
        body = {"prompt": [4], "max_tokens": 1, "echo": True, "logprobs": 1}
        with pytest.raises(Refused, match="400: only no echo"):
            Client(address).post("/completions", body)
    assert len(told.asked) == 1
