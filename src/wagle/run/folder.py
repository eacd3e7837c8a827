"""The run folder: what a recipe produced, what is finished, and what the recipe names."""

from __future__ import annotations

import json
import logging
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from wagle.data.overlap import check_disjoint, near_duplicates
from wagle.data.reading import read_records
from wagle.data.records import Record
from wagle.data.tokens import Encoder
from wagle.evaluation.figures import SETS
from wagle.evaluation.result import Evaluation
from wagle.model.loading import load_tokenizer, resolve_model
from wagle.model.structure import model_folder
from wagle.recipe.reading import dump_recipe, load_recipe
from wagle.recipe.recipe import Recipe
from wagle.recipe.sections.records import RecordSet
from wagle.recipe.sections.training import Training
from wagle.run.ledger import Request, read_ledger
from wagle.system.atomic import append_line, read_json, write_json, write_text
from wagle.system.errors import WagleError
from wagle.system.memory import give_memory_back, total_memory
from wagle.system.secrets import keyed_digest, private_folder, salt

logger = logging.getLogger(__name__)

ROLES = ("before", "after", "reference")


@dataclass(frozen=True)
class Run:
    """A run folder and the recipe that it follows."""

    folder: Path
    recipe: Recipe

    @property
    def state_file(self) -> Path:
        """Which stages are finished, and what they found."""
        return self.folder / "state.json"

    @property
    def private(self) -> Path:
        """Whatever holds records or old values: gradient store, answers, salt; mode 0700."""
        return self.folder / "private"

    @cached_property
    def state(self) -> dict[str, Any]:
        """The content of ``state.json``, kept up to date by ``finish``."""
        if self.state_file.exists():
            found: dict[str, Any] = read_json(self.state_file)
            return found
        return {"stages": {}}

    def carry_out(self, name: str, stage: Callable[[Run], dict[str, Any]]) -> None:
        """Run a stage and enter it with its seconds and the process's peak memory so far."""
        started = time.perf_counter()
        details = stage(self)
        give_memory_back()
        seconds = round(time.perf_counter() - started, 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.finish(name, {"seconds": seconds, "peak_bytes": peak, **details})

    def finish(self, stage: str, details: Mapping[str, Any]) -> None:
        """Enter a finished stage."""
        self.state["stages"][stage] = dict(details)
        write_json(self.state_file, self.state)

    def log(self, stage: str, figures: Mapping[str, Any]) -> None:
        """Append a line to ``log.jsonl``."""
        append_line(self.folder / "log.jsonl", {"stage": stage, **figures})

    def logged(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The lines of ``log.jsonl``, of one stage or all; a line that was cut off is left out."""
        path = self.folder / "log.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]
        return [line for line in lines if stage in (None, line["stage"])]

    def forget_log(self, stage: str) -> None:
        """Drop the lines of a stage that starts over."""
        self._write_log([line for line in self.logged() if line["stage"] != stage])

    def log_steps(self, stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Make these the steps of a stage: one that went on had logged its last part only."""
        other = [x for x in self.logged() if x["stage"] != stage or "step" not in x]
        self._write_log([*other, *({"stage": stage, **figures} for figures in history)])

    def _write_log(self, kept: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
        write_text(self.folder / "log.jsonl", text)

    def warnings(self) -> list[str]:
        """What the stages warned about, each once."""
        return list(dict.fromkeys(x["warning"] for x in self.logged() if "warning" in x))

    def evaluation(self, role: str, benchmark: str | None = None) -> Evaluation | None:
        """One of the evaluations, if it was made: of the recipe's sets, or of a benchmark."""
        name = role if benchmark is None else f"{role}-{benchmark}"
        path = self.folder / "evaluation" / f"{name}.json"
        return Evaluation.from_json(read_json(path)) if path.exists() else None

    # ----- what the recipe names, loaded once and only if a stage needs it -----

    @cached_property
    def named(self) -> Path:
        """The model folder that the recipe names."""
        return resolve_model(self.recipe.model.path)

    @property
    def start(self) -> Path:
        """The model before teaching: the one that is named, or what its adapter makes of it."""
        if self.recipe.model.adapter is None:
            return self.named
        return self.folder / ("start" if self.recipe.finetune else "base")

    @property
    def base(self) -> Path:
        """The model that is to forget: ``base/`` where it was made here."""
        return self.folder / "base" if self.recipe.finetune else self.start

    @cached_property
    def reference(self) -> Path | None:
        """The model that never learned the forget set."""
        named = self.recipe.reference
        if named is None:
            return None
        if named == "retrained":
            return self.folder / "retrained"
        return self.start if named == "untaught" else model_folder(named)

    @property
    def last_good(self) -> Path:
        """The last good weights of a training that broke off, until one has ended well."""
        return self.folder / "last-good"

    @property
    def gradients(self) -> Path:
        """The gradient store."""
        return self.private / "gradients"

    @property
    def dense(self) -> bool:
        """Whether all weights are trained, without a mask: of control arms only."""
        return False

    @cached_property
    def encoder(self) -> Encoder:
        """Tokenizer, template and length limit of the recipe."""
        model = self.recipe.model
        return Encoder(
            load_tokenizer(self.named),
            template=model.template,
            system_prompt=model.system_prompt,
            max_length=model.max_length,
        )

    @cached_property
    def sets(self) -> dict[str, list[Record]]:
        """The record sets of the recipe, read and checked against each other."""
        recipe = self.recipe
        given = {name: getattr(recipe, name) for name in SETS if getattr(recipe, name)}
        sets = {name: self.read(name, asked) for name, asked in given.items()}
        allow = recipe.overlap == "allow"
        for one, other in (
            ("forget", "retain"),
            ("forget", "retain_heldout"),
            ("forget", "general"),
            ("retain", "retain_heldout"),
            ("retain", "general"),
            ("forget", "holdout"),
            ("retain", "holdout"),
            ("retain_heldout", "holdout"),
        ):
            if one in sets and other in sets:
                check_disjoint(sets[one], sets[other], allow=allow)
        if "forget" in sets and "retain" in sets:
            near = near_duplicates(sets["forget"], sets["retain"])
            if near:
                logger.warning(
                    "%d pairs of forget and retain records are nearly the same (%s and %s first); "
                    "unlearning will pull them both ways",
                    len(near),
                    *near[0],
                )
        if "holdout" in sets and "records" in recipe.taught_sets():
            assert recipe.finetune is not None
            assert recipe.finetune.records is not None
            taught = self.read("records", recipe.finetune.records)
            check_disjoint(taught, sets["holdout"], allow=allow)
        for name in ("retain", "holdout"):  # it would be taught again, or was taught once
            if name in sets:
                check_disjoint(self.forgotten, sets[name], allow=allow)
        return sets

    @cached_property
    def forgotten(self) -> list[Record]:
        """What earlier runs were asked to forget, the oldest first, each record once."""
        if self.recipe.after is None or self.recipe.unlearning.earlier == "ignore":
            return []
        folder, sets = self.recipe.after, []
        for request in reversed(read_ledger(folder)):
            sets.append(_forgotten_by(folder, request))
            folder = request.after or folder
        once = {record.id: record for records in reversed(sets) for record in records}
        return list(once.values())

    @property
    def again(self) -> list[Record]:
        """What earlier runs forgot and the objective forgets too, beside the forget set."""
        if self.recipe.unlearning.earlier != "objective":
            return []
        forget = self.need("forget")
        own = {record.id for record in forget}
        again = [record for record in self.forgotten if record.id not in own]
        weights = {record.domain: record.weight for record in forget}
        whole = sum(weight or 0 for weight in weights.values())  # 0: drawn by size, so are these
        weight = whole * len(again) / len(forget) or None
        return [replace(record, domain=len(weights), weight=weight) for record in again]

    def read(self, name: str, asked: RecordSet) -> list[Record]:
        """Read one record set of the recipe."""
        seed = self.recipe.seed if asked.seed is None else asked.seed
        if asked.source == "complement":
            forget = self.recipe.forget
            assert forget is not None
            everything = self.read("forget", forget.model_copy(update={"take": "all"}))
            gone = {r.id for r in self.read("forget", forget)}
            rest = [r for r in everything if r.id not in gone]
            return read_records(rest, name=name, take=asked.take, seed=seed)
        sources = [asked.source] if isinstance(asked.source, str) else asked.source
        weights: Sequence[float | None] = asked.weights or [None] * len(sources)
        records = [
            replace(record, domain=domain, weight=weight)
            for domain, (source, weight) in enumerate(zip(sources, weights, strict=True))
            for record in read_records(
                source, name=name, split=asked.split, rows=asked.rows, seed=seed
            )
        ]
        return read_records(records, name=name, take=asked.take, seed=seed)

    def need(self, name: str) -> list[Record]:
        """A record set that a stage cannot do without."""
        if name not in self.sets:
            raise WagleError(f"the recipe has no {name} set; add a section {name}: {{source: ...}}")
        return self.sets[name]


def _forgotten_by(folder: str, request: Request) -> list[Record]:
    """The forget set of a finished run, read again, if it is still what that run forgot."""
    remedy = "or set unlearning.earlier: ignore"
    try:
        run = Run(Path(folder), load_recipe(Path(folder) / "recipe.yaml"))
        assert run.recipe.forget is not None
        records = run.read("forget", run.recipe.forget)
    except WagleError as error:
        raise WagleError(
            f"cannot read what {folder} forgot: {error}; put it back, {remedy}"
        ) from None
    if not (run.private / "salt").is_file():  # asking for it would make another one
        raise WagleError(
            f"what {folder} forgot cannot be checked without {run.private / 'salt'}; put it back, "
            f"{remedy}"
        )
    if keyed_digest(salt(run.private), [r.id for r in records]) != request.forget["digest"]:
        raise WagleError(
            f"the forget set of {folder} is not what it forgot: its source was changed since; put it "
            f"back, {remedy}"
        )
    return [replace(r, place=f"{r.place} of {folder}") for r in records]


def open_run(recipe: Recipe, folder: Path) -> Run:
    """Make a run folder, or open it again; another recipe is an error once a stage is finished.

    How unlearning trains (its learning rate, its steps) may change until it is finished.
    """
    text = dump_recipe(recipe)
    path = folder / "recipe.yaml"
    if path.exists():
        run = Run(folder, recipe)
        if path.read_text(encoding="utf-8") == text or _means(path, text):
            return run
        finished = run.state["stages"]
        if finished and ("unlearn" in finished or not _trains_otherwise(path, recipe)):
            raise WagleError(
                f"{folder} holds a run of another recipe ({_difference(path, text)}); choose another "
                "folder with --out, or delete it"
            )
        write_text(path, text)  # nothing that it changes was finished under the other one
        return run
    if folder.is_dir() and any(p.name != ".lock" for p in folder.iterdir()):
        raise WagleError(f"{folder} exists and is not a run; choose another folder with --out")
    run = Run(folder, recipe)
    private_folder(run.private)
    salt(run.private)
    write_json(folder / "environment.json", environment())
    write_text(path, text)
    return run


def _means(path: Path, text: str) -> bool:
    """Whether a stored recipe says the same: one of an older version lacks newer settings."""
    try:
        return dump_recipe(load_recipe(path)) == text
    except WagleError:
        return False


def _trains_otherwise(path: Path, recipe: Recipe) -> bool:
    """Whether a stored recipe differs in settings alone that no stage before ``unlearn`` reads."""
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
    old = path.read_text(encoding="utf-8").splitlines()
    new = text.splitlines()
    for before, now in zip(old, new, strict=False):
        if before != now:
            return f"{before.strip()!r} there, {now.strip()!r} here"
    return f"{len(old)} lines there, {len(new)} here"


def find_run(source: str, overrides: list[str], out: str | None) -> tuple[Recipe, Path]:
    """The recipe and the run folder of what a command was given: a recipe or a run folder."""
    folder = Path(source)
    if (folder / "recipe.yaml").is_file():
        if overrides or out:
            raise WagleError(f"{source} is a run; settings and --out go with a recipe")
        return load_recipe(folder / "recipe.yaml"), folder
    recipe = load_recipe(source, overrides)
    return recipe, Path(out) if out else Path("runs") / recipe.name


def environment() -> dict[str, Any]:
    """Versions and machine, as the run folder keeps them."""
    import safetensors

    return {
        "wagle": version("wagle"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": total_memory(),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "argv": sys.argv[1:],
    }
