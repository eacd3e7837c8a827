"""``wagle check`` and ``wagle retrain-adapter``: what they hand on, print and exit with."""

from __future__ import annotations

import json

import pytest
import typer

from tests.conftest import OTHERS, RECORDS, make_model
from wagle.cli import app as cli
from wagle.cli.check import _EXITS
from wagle.evaluation.knowing import deciding
from wagle.system.errors import WagleError
from wagle.unlearning.lora import add_lora, save_adapter

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def call(capsys):
    """A command in this process: its exit code and what it printed."""

    def one(*arguments):
        code = 0
        try:
            found = cli.app(args=[*map(str, arguments)], standalone_mode=False)
            code = found if isinstance(found, int) else 0
        except typer.Exit as stop:
            code = stop.exit_code
        return code, capsys.readouterr().out

    return one


def test_every_verdict_has_an_exit_code():
    words = (deciding.UNKNOWN, deciding.KNOWS, deciding.BASE_KNOWS, deciding.UNCLEAR)
    assert dict(zip(words, (0, 1, 1, 3), strict=True)) == _EXITS


def test_check_asks_about_records_written_as_in_a_recipe(call, model_folder, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one.json").write_text(json.dumps(RECORDS))
    asked = ["--forget", f"{{source: {tmp_path / 'set'}, split: one, rows: '0:3'}}"]
    code, printed = call("check", model_folder, "model.template=plain", *asked, "--json")
    found = json.loads(printed)
    assert code == _EXITS[found["verdict"]]
    assert found["records"] + found["without_twin"] == 3
    assert call("check", model_folder, *asked, "--no-fail")[0] == 0
    with pytest.raises(WagleError, match=r"has no setting 'model.templat'"):
        call("check", model_folder, "model.templat=plain", *asked)
    with pytest.raises(WagleError, match="does not exist"):
        call("check", tmp_path / "nowhere", *asked)


def test_retrain_adapter_writes_a_new_adapter(call, model_folder, tmp_path):
    save_adapter(add_lora(make_model("llama-tied"), rank=2), tmp_path / "old", model_folder)
    for name, rows in (("all", [*RECORDS, *OTHERS]), ("gone", RECORDS[:2])):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    code, printed = call(
        *("retrain-adapter", model_folder, "epochs=1", "learning_rate=1e-3"),
        *("--adapter", tmp_path / "old", "--records", tmp_path / "all.json"),
        *("--forget", tmp_path / "gone.json", "-o", tmp_path / "new"),
    )
    assert code == 0
    assert printed.splitlines()[1] == "trained on 12 records in 2 steps; 2 left out"
    said = json.loads((tmp_path / "new" / "retrained.json").read_text())
    assert (said["training"]["epochs"], said["training"]["schedule"]) == (1, "linear")
