"""From a model's name to its figures: folders with patches, loads, GGUF files."""

from __future__ import annotations

import hashlib

import pytest

from tests.conftest import make_model
from tests.evaluation.served.conftest import ask
from wagle.evaluation.models import find_model
from wagle.evaluation.served import opening
from wagle.evaluation.served.forms import ENDPOINT, FILE, FOLDER, Form, parse_form, short_name
from wagle.evaluation.served.live import Live
from wagle.evaluation.served.opening import check_named, find_tokenizer
from wagle.model.loading import load_model
from wagle.model.quantization.kinds import make_file
from wagle.model.quantization.quantizing import quantize
from wagle.patch.extraction import extract
from wagle.system.errors import WagleError


@pytest.fixture(autouse=True)
def _without_llama_cpp(monkeypatch):
    monkeypatch.setattr(opening, "has_llama_cpp", lambda: False)


@pytest.fixture(scope="module")
def patched(folder, tmp_path_factory):
    """Another model of the same shape, and the patch that makes it."""
    home = tmp_path_factory.mktemp("patched")
    make_model("llama-tied", 1).save_pretrained(home / "other")
    extract(folder, home / "other", home / "p.safetensors")
    return home


@pytest.mark.parametrize(
    ("named", "form", "short"),
    [
        ("models/a", Form(FOLDER, "models/a"), "a"),
        ("nf4:models/a", Form(FOLDER, "models/a", "nf4"), "nf4:a"),
        ("Q8_0:a+b/p+q", Form(FOLDER, "a", "q8_0", ("b/p", "q")), "q8_0:a+p+q"),
        ("bundled:demo", Form(FOLDER, "bundled:demo"), "bundled:demo"),
        ("http://h:1/v1/#m", Form(ENDPOINT, "http://h:1/v1", model="m"), "http://h:1/v1#m"),
        ("https://h/v1", Form(ENDPOINT, "https://h/v1"), "https://h/v1"),
    ],
)
def test_a_name_means_one_thing(named, form, short):
    assert parse_form(named) == form
    assert short_name(form) == short


def test_a_path_that_exists_is_that_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("nf4:a", "a+b"):
        (tmp_path / name).mkdir()
        assert parse_form(name) == Form(FOLDER, name)
    (tmp_path / "m.bin").write_bytes(b"GGUF....")
    assert parse_form("m.bin") == Form(FILE, "m.bin")


def test_a_base_with_a_patch_is_what_the_patch_makes(folder, patched):
    own = ask(f"{folder}+{patched / 'p.safetensors'}")
    other = ask(folder, patch=patched / "p.safetensors")
    assert own.summary() == other.summary()
    assert own.details["model"]["fingerprint"] == other.details["model"]["fingerprint"]


def test_before_and_reference_are_named_in_the_same_ways(folder, patched, plain):
    found = ask(f"{folder}+{patched / 'p.safetensors'}", before=folder, reference=f"int8:{folder}")
    assert found.beside["before"].summary()["forget"] == plain.summary()["forget"]
    told = found.details["reference"]
    assert told["path"] == "int8:tiny"
    assert told["fingerprint"].startswith("int8:")
    assert told["fingerprint_of"] == "the weights before int8"


@pytest.mark.parametrize("how", ["int8", "nf4"])
def test_a_load_has_the_figures_of_the_quantised_model(folder, how, plain):
    found = ask(f"{how}:{folder}")
    live = Live(quantize(load_model(folder), how), how)
    direct = ask(live, tokenizer=find_tokenizer(folder))
    assert found.summary() == direct.summary()
    assert found.summary() != plain.summary()
    assert found.details["model"]["form"] == how


def test_a_gguf_file_has_the_figures_of_the_folder_as_far_as_it_rounds(folder, plain, tmp_path):
    for form, reach in (("f32", 1e-7), ("q8_0", 1e-4)):
        file = tmp_path / f"{form}.gguf"
        make_file(folder, file, form)
        found = ask(file)
        for name in ("probability", "paraphrased"):
            assert found.figures["forget"][name].per_record == pytest.approx(
                plain.figures["forget"][name].per_record, abs=reach
            )
        told = found.details["model"]
        assert told["fingerprint"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert told["fingerprint_of"] == "the file"
        assert told["by"].startswith("transformers")


def test_a_form_is_made_for_the_time_being(folder, patched):
    found = ask(f"f32:{folder}+{patched / 'p.safetensors'}")
    other = ask(patched / "other", tokenizer=find_tokenizer(folder))
    assert found.figures["forget"]["probability"].per_record == pytest.approx(
        other.figures["forget"]["probability"].per_record, abs=1e-7
    )
    assert found.details["model"]["made_by"] == "gguf"


def test_a_gguf_file_may_be_before(folder, other, plain, tmp_path):
    make_file(folder, tmp_path / "m.gguf", "f32")
    found = ask(folder, before=tmp_path / "m.gguf", reference=other)
    assert found.beside["before"].figures["forget"]["probability"].value == pytest.approx(
        plain.figures["forget"]["probability"].value, abs=1e-7
    )
    assert "verdict" in found.details


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nf4:nowhere", "model folder nowhere does not exist"),
        ("{folder}+missing.safetensors", "there is no patch missing.safetensors"),
        ("{folder}+", r"write a base and its patches as FOLDER\+PATCH"),
        ("{bad}", "is no GGUF file, or is damaged"),
    ],
)
def test_what_is_not_there_is_refused_before_any_work(folder, tmp_path, named, said):
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"none")
    with pytest.raises(WagleError, match=said):
        check_named(named.format(folder=folder, bad=bad), find_model)
