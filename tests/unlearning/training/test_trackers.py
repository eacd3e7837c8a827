import sys
import types
from typing import ClassVar

import pytest
from transformers.integrations import integration_utils

from tests.conftest import make_model
from tests.unlearning.conftest import Killed, kill_at, unlearn
from wagle.system.errors import WagleError
from wagle.unlearning.training.trackers import check_trackers

NAMES = {"forget_nll", "retain_nll", "forget_loss", "retain_loss", "grad_norm"}


class Writer:
    """Stands for tensorboard's: notes where it would write, and what."""

    made: ClassVar[list["Writer"]] = []

    def __init__(self, log_dir):
        self.folder, self.scalars = log_dir, []
        Writer.made.append(self)

    def add_text(self, *_):
        pass

    def add_scalar(self, name, value, step):
        self.scalars.append((step, name, value))

    def flush(self):
        pass

    def close(self):
        pass


@pytest.fixture
def writers(monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    for name in ("torch.utils.tensorboard", "tensorboardX"):
        fake = types.ModuleType(name)
        fake.SummaryWriter = Writer
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    monkeypatch.setattr(Writer, "made", [])
    return Writer.made


def _told(writer):
    """The figures by step, under the names that transformers gives them."""
    found = {}
    for step, name, value in writer.scalars:
        found.setdefault(step, {})[name.removeprefix("train/")] = value
    return found


def test_a_tracker_gets_the_figures_of_every_step_under_their_names(writers, tmp_path):
    result = unlearn(
        make_model("llama-tied"),
        report_to=["tensorboard"],
        max_steps=3,
        evaluate_every=3,
        checkpoint_folder=tmp_path,
    )
    told = _told(writers[0])
    assert list(told) == [0, 1, 2, 3]
    for figures in result.history:
        assert {"step": figures["step"], **told[figures["step"]]} == figures
    assert told[1].keys() >= NAMES
    assert "forget.probability" in told[0]


def test_a_run_that_goes_on_counts_its_steps_on(writers, tmp_path):
    more = {
        "report_to": ["tensorboard"],
        "max_steps": 4,
        "checkpoint_folder": tmp_path,
        "checkpoint_minutes": 0,
    }
    with pytest.raises(Killed):
        unlearn(make_model("llama-tied"), on_step=kill_at(3), **more)
    unlearn(make_model("llama-tied"), **more)
    assert [list(_told(w)) for w in writers] == [[1, 2, 3], [3, 4]]
    assert writers[0].folder == writers[1].folder == str(tmp_path / "tensorboard")


def test_events_lie_beside_the_checkpoints_or_where_the_environment_says(
    writers, tmp_path, monkeypatch
):
    more = {"report_to": ["tensorboard"], "max_steps": 1}
    unlearn(make_model("llama-tied"), **more, checkpoint_folder=tmp_path / "c")
    unlearn(make_model("llama-tied"), **more)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "own"))
    unlearn(make_model("llama-tied"), **more, checkpoint_folder=tmp_path / "c")
    assert writers[0].folder == str(tmp_path / "c" / "tensorboard")
    assert writers[1].folder.startswith("runs/")  # of the working directory, as tensorboard's own
    assert writers[2].folder == str(tmp_path / "own")


def test_without_trackers_nothing_is_written(writers, model):
    unlearn(model)
    assert writers == []


def test_real_event_files_are_written_where_tensorboard_is_installed(tmp_path, monkeypatch, model):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path))
    unlearn(model, report_to=["tensorboard"])
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_a_tracker_that_is_not_there_is_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    with pytest.raises(WagleError, match="wandb, which is not installed: pip install wandb"):
        check_trackers(["wandb"])
    with pytest.raises(WagleError, match="unknown tracker 'wanb'; did you mean 'wandb'"):
        check_trackers(["wanb"])
    check_trackers([])
