"""A run beside its control arms: what they share, what they do not, and what stays of them."""

import json
import shutil

import pytest

from tests.conftest import OTHERS, RECORDS
from wagle.mask.mask import Mask
from wagle.model.weights import fingerprint
from wagle.recipe.reading import load_recipe
from wagle.run.execution import execute
from wagle.run.integrity.seals import check_run
from wagle.system.errors import WagleError

FIELDS = {"paraphrased_question": "{question} Tell me.", "paraphrased_answer": "I say: {answer}"}


def rows(records):
    return [
        {
            **row,
            **{key: text.format(**row) for key, text in FIELDS.items()},
            "perturbed_answer": ["I say: no.", "I say: a horse."],
        }
        for row in records
    ]


def asked(folder, model, **more):
    (folder / "forget.json").write_text(json.dumps(rows(RECORDS[:3])))
    (folder / "retain.json").write_text(json.dumps(rows(OTHERS[:4])))
    training = {"learning_rate": 5e-3, "batch_size": 4}
    return load_recipe(
        {
            "name": "tiny",
            "model": str(model),
            "reference": "retrained",
            "forget": str(folder / "forget.json"),
            "retain": str(folder / "retain.json"),
            "finetune": {**training, "epochs": 6},
            "attribution": {"ratio": 0.3},
            "unlearning": {
                **training,
                "epochs": 2,
                "objective": "grad_diff",
                "stop_when": [],
                "when_unknown": "go",
            },
            "evaluation": {"max_new_tokens": 4},
            "attacks": [
                {"name": "relearning", "settings": {"steps": [0, 2], "learning_rate": 1e-3}}
            ],
            "controls": ["random", "dense"],
            **more,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from tests.conftest import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("controls")
    make_model("llama-tied").save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    return execute(asked(folder, folder / "model"), folder / "run")


def test_the_reference_is_taught_all_but_the_forget_set(finished):
    state = finished.state["stages"]
    assert state["teach"]["taught"] == 7
    assert state["retrain"]["taught"] == 4
    made = {name: fingerprint(finished.folder / name) for name in ("base", "retrained", "model")}
    assert len(set(made.values())) == 3
    assert finished.evaluation("reference").details["model"]["path"] == "retrained"


def test_an_arm_differs_in_its_mask_alone(finished):
    own = Mask.load(finished.folder / "mask.safetensors")
    random = Mask.load(finished.folder / "controls" / "random" / "mask.safetensors")
    assert random.metadata["score"] == "random"
    assert (random.count, random.candidates) == (own.count, own.candidates)
    arms = {
        arm: json.loads((finished.folder / "controls" / arm / "state.json").read_text())["stages"]
        for arm in ("random", "dense")
    }
    assert arms["random"]["unlearn"]["selected"] == own.count
    assert arms["dense"]["unlearn"]["selected"] == own.candidates
    steps = {found["unlearn"]["steps"] for found in arms.values()}
    assert steps == {finished.state["stages"]["unlearn"]["steps"]}


def test_arms_are_judged_and_attacked_beside_the_runs_own_reference(finished):
    own = json.loads((finished.folder / "attacks" / "relearning.json").read_text())
    for arm in ("random", "dense"):
        folder = finished.folder / "controls" / arm
        found = json.loads((folder / "attacks" / "relearning.json").read_text())
        for role in ("before", "reference"):
            assert found["roles"][role]["states"] == own["roles"][role]["states"]
        assert found["roles"]["after"] != own["roles"]["after"]
        after = json.loads((folder / "evaluation" / "after.json").read_text())
        assert after["metrics"]["overall.forget_quality"]["value"] <= 1
        assert finished.state["stages"]["controls"]["arms"][arm]["verdict"]


def test_of_an_arm_no_model_stays(finished):
    for arm in ("random", "dense"):
        assert not (finished.folder / "controls" / arm / "model").exists()


def test_the_report_shows_the_arms_side_by_side(finished):
    page = (finished.folder / "report.html").read_text()
    section = page[page.index('id="controls"') : page.index('id="weights"')]
    for text in ("this mask", "random", "dense", "reference", "forget.probability, step 2"):
        assert text in section
    assert "<svg" in section


def test_the_files_of_an_arm_are_sealed_by_the_run_that_it_belongs_to(finished, tmp_path):
    assert check_run(finished.folder) == []
    copy = shutil.copytree(finished.folder, tmp_path / "copy")
    (copy / "controls" / "random" / "evaluation" / "after.json").write_text("{}")
    assert check_run(copy) == [
        "controls/random/evaluation/after.json was edited (made by controls)"
    ]


def test_a_finished_run_does_nothing_again(finished, monkeypatch):
    monkeypatch.setattr("wagle.run.stages.measuring.controls.unlearn", None)
    (finished.folder / "state.json").write_text(
        json.dumps(
            {
                "stages": {
                    k: v
                    for k, v in finished.state["stages"].items()
                    if k not in ("controls", "ledger", "report")
                }
            }
        )
    )
    again = execute(finished.recipe, finished.folder)  # the arms themselves are finished
    found, before = (run.state["stages"]["controls"]["arms"] for run in (again, finished))
    assert found == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"controls": ["random", "random"]}, r"controls\[1\] repeats 'random'"),
        ({"controls": ["lora"]}, r"controls\[0\] is 'lora'"),
        ({"finetune": None}, "reference is 'retrained', finetune without the forget set"),
        (
            {"attribution": {"mask": "m.safetensors"}},
            r"controls\[0\] is 'random', which needs a gradient store",
        ),
        ({"unlearning": {"lora": {}}}, "controls need a mask on the model's own weights"),
    ],
)
def test_what_cannot_be_controlled_is_refused_at_once(tmp_path, more, said):
    with pytest.raises(WagleError, match=said):
        asked(tmp_path, "demo", **more)
