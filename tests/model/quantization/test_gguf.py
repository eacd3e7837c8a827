"""GGUF files written of a folder, and read back: the same weights, tokens and template."""

from __future__ import annotations

import json

import pytest
import torch

from tests.conftest import make_model, make_tokenizer
from wagle.model.gguf_file import is_gguf, read_gguf, read_gguf_tokenizer
from wagle.model.loading import load_model
from wagle.model.quantization import kinds
from wagle.model.quantization.gguf_tokens import split_name
from wagle.model.quantization.gguf_writing import paired, write_gguf
from wagle.model.quantization.kinds import FORMS, check_form, make_file
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError

IDS = torch.arange(5, 25).view(1, 20)


def folder_of(home, family="llama-tied", **tokens):
    model = make_model(family)
    if family == "qwen2":  # whose tokenizer adds a token of its own
        model.resize_token_embeddings(416)
    model.save_pretrained(home / family)
    make_tokenizer(**tokens).save_pretrained(home / family)
    return home / family


def test_rotary_pairs_become_neighbours():
    rows = torch.arange(8.0).view(8, 1)  # two heads of four: 0 pairs with 2, 1 with 3
    assert paired(rows, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert paired(torch.arange(4.0), 1).tolist() == [0, 2, 1, 3]


@pytest.mark.parametrize("family", ["llama-tied", "llama-untied", "mistral", "qwen2"])
def test_an_f32_file_holds_the_model_itself(tmp_path, family):
    folder = folder_of(tmp_path, family)
    write_gguf(folder, tmp_path / "model.gguf")
    made, plain = read_gguf(tmp_path / "model.gguf"), load_model(folder)
    with torch.no_grad():
        torch.testing.assert_close(made(IDS).logits, plain(IDS).logits, rtol=1e-4, atol=1e-5)
    if not family.startswith("mistral"):  # llama.cpp calls it a llama
        assert fingerprint(made) == fingerprint(plain)


def test_a_rounded_file_is_near_the_model_and_smaller(tmp_path):
    folder = folder_of(tmp_path)
    sizes, gaps = {}, {}
    for kind in ("f32", "f16", "q8_0", "q4_0"):
        write_gguf(folder, tmp_path / f"{kind}.gguf", kind)
        sizes[kind] = (tmp_path / f"{kind}.gguf").stat().st_size
        with torch.no_grad():
            gap = read_gguf(tmp_path / f"{kind}.gguf")(IDS).logits - load_model(folder)(IDS).logits
        gaps[kind] = float(gap.abs().max())
    assert sizes["f32"] > sizes["f16"] > sizes["q8_0"] > sizes["q4_0"]
    assert 0 == gaps["f32"] < gaps["f16"] < gaps["q8_0"] < gaps["q4_0"] < 0.1


@pytest.mark.parametrize("bos", [False, True])
def test_the_tokenizer_in_a_file_is_that_of_the_folder(tmp_path, bos):
    own = make_tokenizer(bos=bos)
    folder = folder_of(tmp_path, bos=bos)
    write_gguf(folder, tmp_path / "model.gguf")
    found = read_gguf_tokenizer(tmp_path / "model.gguf")
    for text in ("Who wrote The Winter Garden?", "Ünïcode 1987 <|end|>\n"):
        assert found(text)["input_ids"] == own(text)["input_ids"]
    assert found.eos_token_id == own.eos_token_id
    assert found.chat_template == own.chat_template


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path):
    with pytest.raises(WagleError, match="a model whose type is 'gpt2'; convert it"):
        write_gguf(folder_of(tmp_path, "gpt2"), tmp_path / "model.gguf")
    folder = folder_of(tmp_path)
    with pytest.raises(WagleError, match="unknown type of GGUF file 'q9'"):
        write_gguf(folder, tmp_path / "model.gguf", "q9")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WagleError, match="a model whose rotary positions are scaled"):
        write_gguf(folder, tmp_path / "model.gguf")
    with pytest.raises(WagleError, match="how it splits texts is unknown"):
        split_name({"type": "Metaspace"})
    assert not is_gguf(tmp_path / "model.gguf")


def test_every_form_is_made_or_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(kinds, "_quantizer", lambda: None)
    folder = folder_of(tmp_path)
    for name, what in FORMS.items():
        if name in kinds.MIXED:
            with pytest.raises(WagleError, match=r"needs llama\.cpp's quantiser"):
                check_form(name, folder)
        elif what == "file":
            assert make_file(folder, tmp_path / f"{name}.gguf", name) == "gguf"
            assert is_gguf(tmp_path / f"{name}.gguf")
        elif name != "int4":  # whose groups do not divide these widths
            check_form(name, folder)


def test_llama_cpps_quantiser_is_preferred_where_there_is_one(tmp_path, monkeypatch):
    called = []

    def quantize(whole, small, name):
        called.append((is_gguf(whole), name))
        small.write_bytes(b"GGUF")

    monkeypatch.setattr(kinds, "_quantizer", lambda: ("llama-quantize", quantize))
    folder = folder_of(tmp_path)
    assert make_file(folder, tmp_path / "m.gguf", "q4_k_m") == "llama-quantize"
    assert make_file(folder, tmp_path / "f.gguf", "f16") == "gguf"
    assert called == [(True, "q4_k_m")]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.gguf", "llama-tied", "m.gguf"]
