"""What is installed and what the machine has."""

from __future__ import annotations

import torch

from wagle.system.machine import (
    describe,
    installed,
    missing_by_extra,
    parse_cards,
    problems,
    torch_cuda,
)

FINE = {
    "versions": {"torch": "2.13"},
    "cuda": None,
    "devices": [{"name": "cpu"}],
    "disk": {"here": 1 << 40},
}


def test_the_machine_is_described_by_what_torch_and_the_system_say():
    found = describe()
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert torch_cuda() == torch.version.cuda
    assert 0 < found["memory"]["free"] <= found["memory"]["total"]
    assert found["disk"]["here"] > 0
    assert found["devices"][0]["processors"] >= 1
    assert "lora" in found["extras"]


def test_cards_are_read_from_the_drivers_lines():
    (card,) = parse_cards("NVIDIA H200, 143771, 143000, 570.1\nnot a card\n")
    assert card["name"] == "NVIDIA H200"
    assert card["memory"] == {"total": 143771 << 20, "free": 143000 << 20}


def test_an_extra_lacks_what_is_not_installed():
    required = ["torch>=2", "peft>=0.18; extra == 'lora'", 'nosuch-thing>=1; extra == "odd"']
    required += ["pytest; extra == 'dev'"]
    assert missing_by_extra(required) == {"lora": [], "odd": ["nosuch-thing"]}
    assert installed("nosuch-thing") is None


def test_a_problem_says_what_to_do():
    assert problems(FINE) == []
    (line,) = problems({**FINE, "versions": {"torch": None}})
    assert line == "torch is not installed: pip install wagle"
    (line,) = problems({**FINE, "devices": [{"name": "cpu"}, {"name": "H200"}]})
    assert "torch was built without CUDA" in line
    (line,) = problems({**FINE, "disk": {"here": 5}})
    assert "less than 1 GB is free" in line


def test_the_hubs_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "none" / "yet"))
    assert describe()["disk"]["hub_cache"] > 0
