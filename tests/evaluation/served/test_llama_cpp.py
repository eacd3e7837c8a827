"""A GGUF file that llama.cpp runs; only where llama-cpp-python is installed."""

from __future__ import annotations

import pytest

from tests.evaluation.served.conftest import ask
from wagle.model.quantization.kinds import make_file

pytest.importorskip("llama_cpp")


def test_a_file_run_by_llama_cpp_has_the_figures_of_the_folder(folder, plain, tmp_path):
    make_file(folder, tmp_path / "m.gguf", "f32")
    found = ask(tmp_path / "m.gguf")
    assert found.details["model"]["by"].startswith("llama-cpp-python")
    assert found.figures["forget"].keys() == plain.figures["forget"].keys()
    for name in ("probability", "paraphrased", "know", "extraction_strength"):
        assert found.figures["forget"][name].per_record == pytest.approx(
            plain.figures["forget"][name].per_record, rel=2e-2
        )


def test_mixtures_are_made_by_its_quantiser(folder, tmp_path):
    assert make_file(folder, tmp_path / "m.gguf", "q8_0") == "llama-cpp-python"
