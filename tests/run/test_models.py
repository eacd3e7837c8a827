"""Where the models of a run lie: named, made, or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from wagle.recipe.reading import load_recipe
from wagle.run.models import Models
from wagle.system.errors import WagleError

RUN = Path("runs/x")


@pytest.fixture
def models(tmp_path):
    """Makes the models of a recipe whose named model is an empty folder."""
    (tmp_path / "config.json").touch()

    def make(**sections):
        model = {"path": str(tmp_path), **sections.pop("model", {})}
        recipe = {"name": "x", "model": model, "forget": "demo:forget", **sections}
        return Models(RUN, load_recipe(recipe))

    return make


@pytest.mark.parametrize(
    ("adapter", "taught", "start", "base"),
    [
        (False, False, None, None),  # None: the model that is named
        (False, True, None, RUN / "base"),
        (True, False, RUN / "base", RUN / "base"),
        (True, True, RUN / "start", RUN / "base"),
    ],
)
def test_the_start_and_the_base_are_named_or_made_here(
    models, tmp_path, adapter, taught, start, base
):
    sections = {"model": {"adapter": "somewhere"}} if adapter else {}
    found = models(**sections, **({"finetune": {}} if taught else {}))
    assert found.named == tmp_path
    assert found.start == (start or tmp_path)
    assert found.base == (base or tmp_path)
    assert found.gradients == RUN / "private/gradients"


def test_a_reference_is_none_untaught_retrained_or_a_folder(models, tmp_path):
    assert models().reference is None
    assert models(reference="untaught", finetune={}).reference == tmp_path
    retrained = models(reference="retrained", finetune={}, retain="demo:retain")
    assert retrained.reference == RUN / "retrained"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").touch()
    assert models(reference=str(other)).reference == other


def test_without_a_reference_the_model_before_its_teaching_or_its_adapter_stands_in(
    models, tmp_path
):
    adapted = {"model": {"adapter": "somewhere"}}
    assert models(finetune={}).reference == tmp_path
    assert models(**adapted).reference == tmp_path  # the base of the adapter, not base/
    assert models(**adapted, finetune={}).reference == RUN / "start"
    assert models(finetune={}, reference="none").reference is None


def test_a_reference_that_is_no_model_folder_is_refused(models, tmp_path):
    with pytest.raises(WagleError, match="nowhere"):
        _ = models(reference=str(tmp_path / "nowhere")).reference


def test_an_untaught_reference_starts_from_the_adapted_model(models):
    found = models(model={"adapter": "somewhere"}, reference="untaught", finetune={})
    assert found.reference == RUN / "start"
