"""A run: its folder and the recipe that it follows, created or reopened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from wagle.evaluation.result import Evaluation
from wagle.recipe.reading import dump_recipe, load_recipe
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.training import Training
from wagle.run.environment import environment
from wagle.run.folder import RunFolder
from wagle.run.inputs import Inputs
from wagle.run.models import Models
from wagle.system.errors import Unwritable, WagleError
from wagle.system.files.atomic import locked, write_json, write_text
from wagle.system.files.reading import read_text
from wagle.system.files.secrets import private_folder, salt

IMPORT = "import"  # in the log: how another project's config was read


@dataclass(frozen=True)
class Run(RunFolder):
    """A run folder and the recipe that it follows.

    A control arm is a run inside another one. It differs in which weights train; models, gradients,
    records and the evaluations before and of the reference are those of the whole run.

    Attributes:
        recipe: what to do.
        whole: for a control arm, the run that it is a control of.
        arm: for a control arm, ``random`` or ``dense``.
    """

    recipe: Recipe
    whole: Run | None = None
    arm: str = ""

    @cached_property
    def models(self) -> Models:
        """The paths of the run's models."""
        return self.whole.models if self.whole else Models(self.folder, self.recipe)

    @cached_property
    def inputs(self) -> Inputs:
        """The records of the recipe."""
        return self.whole.inputs if self.whole else Inputs(self.recipe, self.models)

    @property
    def dense(self) -> bool:
        """Whether all weights are trained without a mask; true only of control arms."""
        return self.arm == "dense"

    def outside(self, stage: str, needs: Sequence[str] = ()) -> dict[str, Path]:
        """The model that the recipe names and the reference, where a stage reads them."""
        models, found = self.models, {}
        if stage in ("teach", "retrain") or ("teach" in needs and models.base == models.named):
            found["teach"] = models.named
        if stage in ("reference", "attacks") and models.reference is not None:
            found["reference"] = models.reference
        inside = self.folder
        return {first: home for first, home in found.items() if not home.is_relative_to(inside)}

    def evaluation(self, role: str, benchmark: str | None = None) -> Evaluation | None:
        """One of the evaluations, if it exists: on the recipe's sets, or on a benchmark."""
        if self.whole and role != "after":
            return self.whole.evaluation(role, benchmark)
        return super().evaluation(role, benchmark)


@contextmanager
def opened(recipe: Recipe, folder: Path, enough: Sequence[str] = ()) -> Iterator[Run]:
    """Hold a run folder for this process, then create or reopen it: a run in progress stays as it is.

    What begins with bad input leaves nothing behind.

    Args:
        recipe: what to do.
        folder: the run folder.
        enough: the stages that a run has to have finished to be read where nothing can be written;
            none at all means that something will be written.

    Raises:
        WagleError: another process works there, or the folder is not a run or one of another recipe.
    """
    _refuse_foreign(folder)  # before a lock is left in it
    new, there = not (folder / "recipe.yaml").exists(), folder.exists()
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder))
        except Unwritable:
            finished = RunFolder(folder).state["stages"]
            if new or not enough or not finished.keys() >= set(enough):
                raise
        try:
            yield open_run(recipe, folder)
        except WagleError:
            if new and _only_begun(folder):
                _withdraw(folder, keep=there)
            raise


def open_run(recipe: Recipe, folder: Path) -> Run:
    """Create or reopen a run folder; another recipe is an error once a stage is finished.

    How unlearning trains (its learning rate, its steps) may change until it is finished.
    """
    text = dump_recipe(recipe)
    path = folder / "recipe.yaml"
    if path.exists():
        run = Run(folder, recipe)
        if read_text(path) == text or _means(path, text):
            return run
        finished = run.state["stages"]
        if finished and ("unlearn" in finished or not _trains_otherwise(path, recipe)):
            raise WagleError(
                f"{folder} holds a run of another recipe ({_difference(path, text)}); choose another "
                "folder with --out, or delete this one"
            )
        write_text(path, text)  # nothing that it affects was finished under the old recipe
        return run
    _refuse_foreign(folder)
    run = Run(folder, recipe)
    private_folder(run.private)
    salt(run.private)
    write_json(folder / "environment.json", environment())
    write_text(path, text)
    return run


_FIRST = (  # what a run leaves in its first moments, in this order
    ".lock",
    "private",
    "private/salt.part",
    "private/salt",
    "environment.json.part",
    "environment.json",
    "recipe.yaml.part",
)
_CHECKED = ("recipe.yaml", "log.jsonl.part", "log.jsonl")  # and, before its first stage, these


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that is no run, unless a run was killed there in its first moments."""
    if (folder / "recipe.yaml").exists() or not folder.is_dir():
        return
    found = _contents(folder)
    ours = "private/salt" in found or not any(name.startswith("env") for name in found)
    if found - set(_FIRST) or not ours:
        raise WagleError(f"{folder} exists and is not a run; choose another folder with --out")


def _contents(folder: Path) -> set[str]:
    """What is in a folder and in its folder ``private``; others are not looked into."""
    private = folder / "private"
    inside = private.iterdir() if private.is_dir() else ()
    return {path.name for path in folder.iterdir()} | {f"private/{path.name}" for path in inside}


def _only_begun(folder: Path) -> bool:
    """Whether a run folder holds only what is there before the first stage."""
    stages = {line["stage"] for line in RunFolder(folder).logged()}
    return not _contents(folder) - {*_FIRST, *_CHECKED} and stages <= {"check", IMPORT}


def _withdraw(folder: Path, *, keep: bool) -> None:
    """Take back a run that was refused before its first stage; ``keep`` leaves the empty folder."""
    for name in (*reversed(_CHECKED), *reversed(_FIRST)):
        path = folder / name
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    if not keep:
        folder.rmdir()


def _means(path: Path, text: str) -> bool:
    """Whether a stored recipe is equivalent; one from an older version lacks newer settings."""
    try:
        return dump_recipe(load_recipe(path)) == text
    except WagleError:
        return False


def _trains_otherwise(path: Path, recipe: Recipe) -> bool:
    """Whether a stored recipe differs only in settings that no stage before ``unlearn`` reads."""
    try:
        stored = load_recipe(path)
    except WagleError:
        return False
    training = {name: getattr(recipe.unlearning, name) for name in Training.model_fields}
    changed = stored.unlearning.model_copy(update=training)
    moved: Recipe = stored.model_copy(update={"unlearning": changed})
    return dump_recipe(moved) == dump_recipe(recipe)


def _difference(path: Path, text: str) -> str:
    """The first line that differs between the stored recipe and ``text``."""
    old = read_text(path).splitlines()
    new = text.splitlines()
    for before, now in zip(old, new, strict=False):
        if before != now:
            return f"{before.strip()!r} there, {now.strip()!r} here"
    return f"{len(old)} lines there, {len(new)} here"
