"""One process of a run: started by a fork after the imports, watched, and what it left compared.

A fork costs a few hundredths of a second, an import of torch and transformers some seconds.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from tests.conftest import OTHERS, RECORDS, make_model, make_tokenizer

import wagle.report.html.sections
from bench.golden import _digest_of
from wagle.run.stages.table import STAGES, Stage

CLOSE = 1e-3  # how far figures of two processes may be from those of one
PATIENCE = 240.0  # seconds after which a process counts as hanging
_LEFT_OUT = {"environment.json", ".lock"}  # they name the machine and the moment
_TRAINING = {"learning_rate": 5e-3, "batch_size": 4}


def prepare(home: Path) -> Path:
    """Write a tiny model and a recipe whose every stage has something to do; returns the recipe.

    It is done in a process of its own: threads that torch has begun do not survive a fork.
    """
    recipe = home / "recipe.yaml"
    if not recipe.exists():
        home.mkdir(parents=True, exist_ok=True)
        pid = os.fork()
        if pid == 0:
            _write(home, recipe)
            os._exit(0)
        os.waitpid(pid, 0)
    return recipe


def _write(home: Path, recipe: Path) -> None:
    make_model("llama-untied").save_pretrained(home / "tiny")
    make_tokenizer().save_pretrained(home / "tiny")
    names = ["Ada Holm", "Bo Lind", "Cleo Berg", "Dag Moe"]
    rows = [{"question": f"Where does {n} live?", "answer": f"{n} lives in Oslo."} for n in names]
    for name, some in (("forget", rows), ("more", [*RECORDS[:2], *OTHERS[:3]])):
        (home / f"{name}.json").write_text(json.dumps(some))
    asked = {
        "name": "tiny",
        "model": str(home / "tiny"),
        "reference": "retrained",
        "forget": str(home / "forget.json"),
        "retain": "made",
        "finetune": {**_TRAINING, "max_steps": 6, "records": str(home / "more.json")}
        | {"sets": ["forget", "records"]},
        "attribution": {"ratio": 0.5},
        "unlearning": {**_TRAINING, "max_steps": 3, "when_unknown": "go", "check_every": 1}
        | {"checkpoint_minutes": 0},
        "evaluation": {"max_new_tokens": 4},
        "deploy": ["int8"],
        "attacks": [{"name": "quantization", "settings": {"methods": ["int8"]}}],
        "controls": ["random"],
        "patch": {"undo": True},
    }
    recipe.write_text(yaml.safe_dump(asked))
    return recipe


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; minus the signal that killed it.
        said: what it wrote to stderr.
        hung: whether it had to be killed because it did not end.
    """

    code: int
    said: str
    hung: bool = False

    @property
    def line(self) -> str | None:
        """The one line that it ended with, if there is one and no traceback."""
        lines = self.said.strip().splitlines()
        alone = lines and lines[-1].startswith("wagle: ") and "Traceback" not in self.said
        return lines[-1] if alone else None


class Process:
    """A wagle process of this machine, forked from this one.

    Args:
        arguments: of the command line.
        log: where its stderr goes.
        arm: called in it before it begins.
    """

    def __init__(
        self, arguments: Sequence[str], log: Path, arm: Callable[[], None] | None = None
    ) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid == 0:
            os._exit(_live(arguments, log, arm))

    def send(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, patience: float = PATIENCE) -> Ended:
        """How it ended; one that does not is killed."""
        until, hung = time.monotonic() + patience, False
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until and not hung:
                self.send(signal.SIGKILL)
                hung = True
            time.sleep(0.005)
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        return Ended(os.waitstatus_to_exitcode(status), said, hung)


def _live(arguments: Sequence[str], log: Path, arm: Callable[[], None] | None) -> int:
    """The whole life of a forked process; returns its exit code."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # a salt that is always the same, so that what is keyed with it can be compared
    secrets.token_hex = lambda size=32: "5a" * (size or 32)  # type: ignore[assignment]
    from wagle.cli.app import main

    code: Any = 0
    try:
        if arm is not None:
            arm()
        main(list(arguments))
    except SystemExit as end:
        code = 0 if end.code is None else end.code
    except Exception:  # noqa: BLE001 - a bug of the run is what is looked for
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stderr.flush()
    return code if isinstance(code, int) else 1


def at_stages(act: Callable[[str], None]) -> None:
    """Have something happen in this process as it begins a stage, whose name it is given."""
    call = Stage.__call__

    def watched(stage: Stage, run: Any) -> dict[str, Any]:
        act(stage.name)
        return call(stage, run)

    Stage.__call__ = watched  # type: ignore[method-assign]


def record(folder: Path) -> dict[str, str]:
    """The digest of every file of a run folder, but for times, machine and the moment."""
    return {
        str(path.relative_to(folder)): _digest_of(path, folder.parent)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in _LEFT_OUT
        and not {"answers", "references"} & set(path.relative_to(folder).parts)
    }


def differing(found: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """The files that differ, are missing or were not wanted."""
    return sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))


def figures(folder: Path) -> dict[str, float | str]:
    """Every figure of a run's evaluations, and the verdict."""
    found: dict[str, float | str] = {}
    for path in sorted(folder.glob("evaluation/*.json")):
        told = json.loads(path.read_text())
        for name, figure in told["metrics"].items():
            found[f"{path.stem} {name}"] = figure["value"]
        found[path.stem] = told.get("verdict") or ""
    return found


def close(found: dict[str, float | str], wanted: dict[str, float | str]) -> bool:
    """Whether two runs have the same verdicts, and figures that differ by rounding at most."""
    if found.keys() != wanted.keys():
        return False
    for name, value in wanted.items():
        other = found[name]
        same = other == value
        with contextlib.suppress(TypeError):
            same = same or abs(other - value) <= CLOSE  # type: ignore[operator]
        if not same:
            return False
    return True


def imports() -> None:
    """Import whatever a run needs, once, before processes are forked."""
    for name in ("wagle.run.execution", "rouge_score.rouge_scorer", "altair", "vl_convert"):
        import_module(name)
    for section in wagle.report.html.sections.__path__:
        for file in Path(section).glob("*.py"):
            import_module(f"wagle.report.html.sections.{file.stem}")
    torch.set_num_threads(1)  # threads do not survive a fork
    for stage in STAGES.values():
        stage._module()
    gc.collect()
    gc.freeze()  # else every collection in a fork copies the pages of all that is imported
