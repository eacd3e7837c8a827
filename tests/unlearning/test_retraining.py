"""An adapter trained again without some records: what it holds, and what it says about itself."""

import json

import pytest
import torch
from safetensors.torch import load_file

import wagle
from tests.conftest import OTHERS, RECORDS, make_model
from tests.unlearning.conftest import Killed, kill_at
from wagle.model.adapters import load_merged
from wagle.recipe.sections.training import Training
from wagle.system.errors import WagleError
from wagle.unlearning.lora import add_lora, save_adapter

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
TRAINING = Training(epochs=2, learning_rate=1e-2, batch_size=4, checkpoint_minutes=0)
FORGET = [{**row, "answer": row["answer"].upper()} for row in RECORDS[:3]]


@pytest.fixture
def old(model_folder, tmp_path):
    """The adapter that was taught everything, as far as its configuration goes."""
    model = add_lora(make_model("llama-tied"), rank=3, alpha=12, targets=["q_proj", "up_proj"])
    save_adapter(model, tmp_path / "old", model_folder)
    return tmp_path / "old"


def _again(model_folder, old, out, records=(*RECORDS, *OTHERS), forget=FORGET, **more):
    return wagle.retrain_adapter(
        model_folder,
        adapter=old,
        records=list(records),
        forget=forget,
        out=out,
        **{"training": TRAINING, **more},
    )


def test_the_new_adapter_is_the_one_that_never_saw_the_records(model_folder, old, tmp_path):
    made = _again(model_folder, old, tmp_path / "new")
    assert (made.left_out, made.records["n"], made.missing) == (3, 11, 0)
    _again(model_folder, old, tmp_path / "exact", [*RECORDS[3:], *OTHERS, FORGET[0]], FORGET[:1])
    new, exact = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("new", "exact"))
    assert all(torch.equal(new[name], exact[name]) for name in new)
    theirs, ours = (
        json.loads((f / "adapter_config.json").read_text()) for f in (old, tmp_path / "new")
    )
    assert ours == theirs
    merged = load_merged(model_folder, tmp_path / "new").state_dict()
    base = make_model("llama-tied").state_dict()
    moved = {n for n in base if not torch.equal(merged[n], base[n])}
    assert moved
    assert all("q_proj" in name or "up_proj" in name for name in moved)


def test_it_says_what_it_was_made_of_without_text(model_folder, old, tmp_path):
    _again(model_folder, old, tmp_path / "new", seed=4)
    text = (tmp_path / "new" / "retrained.json").read_text()
    said = json.loads(text)
    assert (said["schema"], said["seed"], said["left_out"]) == ("wagle-retrained/1", 4, 3)
    assert not any(row["answer"] in text or row["question"] in text for row in RECORDS)
    assert (tmp_path / "new-private").stat().st_mode & 0o77 == 0
    assert [p.name for p in (tmp_path / "new-private").iterdir()] == ["salt"]


def test_a_killed_training_resumes_with_the_same_weights(model_folder, old, tmp_path):
    _again(model_folder, old, tmp_path / "calm")
    with pytest.raises(Killed):
        _again(model_folder, old, tmp_path / "new", on_step=kill_at(3))
    steps = []
    _again(model_folder, old, tmp_path / "new", on_step=lambda found: steps.append(found["step"]))
    assert steps[0] > 1
    new, calm = (load_file(tmp_path / n / "adapter_model.safetensors") for n in ("new", "calm"))
    assert all(torch.equal(new[name], calm[name]) for name in calm)


def test_bad_input_is_one_line(model_folder, old, tmp_path, caplog):
    with pytest.raises(WagleError, match="none of the 3 records to forget is among the 8 records"):
        _again(model_folder, old, tmp_path / "new", OTHERS)
    with pytest.raises(WagleError, match="every record is to be forgotten"):
        _again(model_folder, old, tmp_path / "new", RECORDS[:3])
    (tmp_path / "there").mkdir()
    with pytest.raises(WagleError, match="there exists already"):
        _again(model_folder, old, tmp_path / "there")
    with pytest.raises(WagleError, match="so it is not an adapter folder"):
        _again(model_folder, model_folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    _again(model_folder, old, tmp_path / "new", RECORDS[1:])
    assert "1 of 3 records to forget are not among the records (forget[0] first)" in caplog.text
