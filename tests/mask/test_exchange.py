"""Published .pt masks: what is read, what is refused, and that nothing in them is run."""

import os
import pickle
import resource
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import make_model
from tests.mutants import flipped, survives
from wagle.mask.exchange import export_mask, import_mask
from wagle.mask.mask import Mask
from wagle.model.weights import fingerprint
from wagle.system.errors import WagleError


def parameters(model):
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def draw(shapes, density=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.rand(s, generator=generator) < density for key, s in shapes.items()}


@pytest.fixture
def folder(tmp_path):
    make_model("llama-tied").save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_published_mask_comes_in_with_its_bits_and_its_exact_ratio(
    folder, model, tmp_path, dtype, zipped
):
    published = draw(parameters(model))
    stored = {name: tensor.to(dtype) for name, tensor in published.items()}
    torch.save(stored, tmp_path / "tofu_0.3.pt", _use_new_zipfile_serialization=zipped)
    mask = import_mask(tmp_path / "tofu_0.3.pt", folder)
    assert list(mask) == list(published)
    assert all(torch.equal(mask[name], tensor) for name, tensor in published.items())
    assert mask.count == sum(int(t.sum()) for t in published.values())
    assert mask.candidates == sum(t.numel() for t in published.values())
    assert mask.ratio == mask.count / mask.candidates
    assert mask.metadata["model"] == fingerprint(folder)
    assert mask.metadata["score"] == "imported"
    assert mask.metadata["settings"] == {"file": "tofu_0.3.pt"}
    mask.check_model(model)


@pytest.mark.parametrize("family", ["llama-untied", "gpt2", "opt"])
def test_numbers_stand_for_the_linear_layers_of_all_blocks_in_order(family, tmp_path):
    model = make_model(family)
    model.save_pretrained(tmp_path / "model")
    kinds = {
        "llama-untied": [f"self_attn.{x}_proj" for x in "qkvo"]
        + [f"mlp.{x}_proj" for x in ("gate", "up", "down")],
        "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
        "opt": [f"self_attn.{x}_proj" for x in ("k", "v", "q", "out")] + ["fc1", "fc2"],
    }[family]
    inside = {
        "llama-untied": "model.layers",
        "gpt2": "transformer.h",
        "opt": "model.decoder.layers",
    }
    names = [f"{inside[family]}.{i}.{kind}.weight" for i in (0, 1) for kind in kinds]
    shapes = parameters(model)
    published = draw({number: shapes[name] for number, name in enumerate(names)})
    torch.save(published, tmp_path / "wanda.pt")
    mask = import_mask(tmp_path / "wanda.pt", tmp_path / "model")
    assert all(torch.equal(mask[name], published[i]) for i, name in enumerate(names))
    assert {name for name, tensor in mask.items() if tensor.any()} == set(names)
    assert set(mask.metadata["names"]) == set(mask.candidate_names) == set(names)
    assert mask.candidates == sum(t.numel() for t in published.values())
    assert mask.complement().count == mask.candidates - mask.count


def test_numbered_layers_of_another_depth_are_refused_with_both_numbers(folder, tmp_path):
    torch.save({i: torch.ones(2, 2, dtype=torch.bool) for i in range(21)}, tmp_path / "m.pt")
    with pytest.raises(WagleError, match=r"numbers 21 linear layers .* the model have 14"):
        import_mask(tmp_path / "m.pt", folder)


class Spy:
    """Pickled, it makes a folder when code of the file is run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_file_is_not_run_and_the_error_says_so(folder, tmp_path, protocol):
    ran = tmp_path / "ran"
    torch.save({"a": Spy(ran)}, tmp_path / "m.pt", pickle_protocol=protocol)
    with pytest.raises(WagleError, match=r"mask .*m\.pt holds code, not only tensors"):
        import_mask(tmp_path / "m.pt", folder)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": Spy(ran)}, protocol=protocol))
    with pytest.raises(WagleError, match="holds code, not only tensors"):
        import_mask(tmp_path / "plain.pt", folder)
    assert not ran.exists()
    pickle.loads(pickle.dumps(Spy(ran)))  # noqa: S301 - the spy itself works
    assert ran.exists()


@pytest.mark.parametrize("value", [nn.Linear(2, 2), {"a": np.zeros(3)}])
def test_objects_other_than_tensors_are_code_too(folder, tmp_path, value):
    torch.save(value, tmp_path / "m.pt")
    with pytest.raises(WagleError, match="holds code, not only tensors") as found:
        import_mask(tmp_path / "m.pt", folder)
    assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(3), "is not a dict that maps parameter names"),
        ({}, "is not a dict that maps parameter names"),
        ({"a": torch.ones(3), 1: torch.ones(3)}, "is not a dict that maps parameter names"),
        ({"a": 1}, "holds no plain tensor for a"),
        ({"a": torch.ones(3).to_sparse()}, "holds no plain tensor for a"),
    ],
)
def test_other_contents_are_refused(folder, tmp_path, value, message):
    torch.save(value, tmp_path / "m.pt")
    with pytest.raises(WagleError, match=message):
        import_mask(tmp_path / "m.pt", folder)


def test_a_missing_a_truncated_and_a_foreign_file_are_one_line(folder, model, tmp_path):
    with pytest.raises(WagleError, match="does not exist"):
        import_mask(tmp_path / "none.pt", folder)
    path = tmp_path / "m.pt"
    torch.save(draw(parameters(model)), path)
    for content in (path.read_bytes()[:-100], b"", b"a text"):
        path.write_bytes(content)
        with pytest.raises(WagleError, match=r"was not saved by torch\.save") as found:
            import_mask(path, folder)
        assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize("value", [0.5, -1.0, 2.0, float("nan")])
def test_values_other_than_0_and_1_are_refused(folder, model, tmp_path, value):
    published = {name: t.float() for name, t in draw(parameters(model)).items()}
    published["model.norm.weight"][3] = value
    torch.save(published, tmp_path / "m.pt")
    with pytest.raises(WagleError, match=rf"holds {value} in model\.norm\.weight"):
        import_mask(tmp_path / "m.pt", folder)


def test_names_and_shapes_that_do_not_fit_name_the_first(folder, model, tmp_path):
    shapes = parameters(model)
    path = tmp_path / "m.pt"

    def refused(changed, message):
        torch.save(draw(changed), path)
        with pytest.raises(WagleError, match=message):
            import_mask(path, folder)

    missing = {n: s for n, s in shapes.items() if "layers.1.mlp" not in n}
    first = r"model\.layers\.1\.mlp\.gate_proj\.weight is absent in the mask and \(48, 32\)"
    refused(missing, first)
    refused({**shapes, "score.weight": (2, 2)}, r"score\.weight is \(2, 2\) in the mask and absent")
    embedding = "model.embed_tokens.weight"
    refused(
        {**shapes, embedding: (401, 32)}, r"the mask has one row more: was a token such as \[pad"
    )
    refused(
        {**shapes, embedding: (399, 32)}, r"the model has one row more: was a token such as \[pad"
    )
    torch.save(draw({**shapes, embedding: (300, 32)}), path)
    with pytest.raises(WagleError) as found:
        import_mask(path, folder)
    assert "[pad]" not in str(found.value)


def test_a_mask_of_nothing_is_refused(folder, model, tmp_path):
    torch.save(draw(parameters(model), density=0.0), tmp_path / "m.pt")
    with pytest.raises(WagleError, match="selects no weight"):
        import_mask(tmp_path / "m.pt", folder)


def test_an_exported_mask_is_bool_tensors_and_comes_back(folder, model, tmp_path):
    published = draw(parameters(model))
    torch.save(published, tmp_path / "m.pt")
    mask = import_mask(tmp_path / "m.pt", folder)
    for name in ("a", "b"):
        export_mask(mask, tmp_path / f"{name}.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    plain = torch.load(tmp_path / "a.pt", weights_only=True)  # noqa: TID251 - as others read it
    assert {t.dtype for t in plain.values()} == {torch.bool}
    assert all(torch.equal(plain[name], tensor) for name, tensor in published.items())
    again = import_mask(tmp_path / "a.pt", folder)
    assert (again.ratio, again.count) == (mask.ratio, mask.count)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "b.pt", "llama", "m.pt"]


def test_a_ladder_is_not_exported(tmp_path):
    levels = {"w": torch.tensor([0, 1, 2], dtype=torch.uint8)}
    about = {"score": "random", "settings": {}, "candidates": 3, "thresholds": None, "model": ""}
    mask = Mask.from_levels(levels, ratios=[0.4, 0.7], counts=[1, 2], metadata=about)
    with pytest.raises(WagleError, match=r"choose one with mask.at\(ratio\)"):
        export_mask(mask, tmp_path / "m.pt")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------
# Files from strangers


def test_an_archive_that_unpacks_to_more_than_a_mask_can_take_is_refused_unread(folder, tmp_path):
    torch.save({"a": torch.zeros(1 << 27, dtype=torch.bool)}, tmp_path / "whole.pt")
    bomb = tmp_path / "m.pt"
    with (
        zipfile.ZipFile(tmp_path / "whole.pt") as old,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert bomb.stat().st_size < 1 << 20
    (tmp_path / "whole.pt").unlink()
    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        WagleError, match=r"m\.pt unpacks to 134 MB, but a mask of this model takes"
    ):
        import_mask(bomb, folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - told < 1 << 16  # KiB


def test_a_tensor_of_one_number_in_a_huge_shape_is_refused_by_its_shape(folder, tmp_path):
    torch.save({"a": torch.zeros(1).expand(1 << 30, 1 << 30)}, tmp_path / "m.pt")
    with pytest.raises(WagleError, match="does not fit the model"):
        import_mask(tmp_path / "m.pt", folder)


def test_codes_and_complex_numbers_are_no_levels(folder, tmp_path):
    for dtype in (torch.complex64, torch.float8_e4m3fn):
        torch.save({"a": torch.zeros(3).to(dtype)}, tmp_path / "m.pt")
        with pytest.raises(WagleError, match="holds no plain tensor for a"):
            import_mask(tmp_path / "m.pt", folder)


def test_flipped_bytes_of_a_published_mask_are_refused_in_one_line(model, folder, tmp_path):
    path = tmp_path / "m.pt"
    torch.save({n: torch.ones(p.shape).bool() for n, p in model.named_parameters()}, path)
    whole = path.read_bytes()
    for number in range(150):
        path.write_bytes(flipped(whole, number))
        survives(lambda: import_mask(path, folder), number)
