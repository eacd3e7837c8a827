"""The run folder: its paths, which stages are finished, and the log."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wagle.system.errors import WagleError
from wagle.system.files.atomic import append_line, disk_errors, write_json, write_text
from wagle.system.files.reading import parse_json, read_bytes
from wagle.system.files.seals import (
    content_digest,
    file_digest,
    is_intact,
    large_stamps,
    marks,
    seal,
)
from wagle.system.progress import stop_if_asked

if TYPE_CHECKING:
    from wagle.evaluation.result import Evaluation

_DRAWN = ("forget_nll", "retain_nll", "forget.probability")  # figures of steps that charts show


@dataclass(frozen=True)
class Seal:
    """What a stage wrote, as it was then.

    Attributes:
        files: the digest of every file.
        stamps: size and time of change of the large ones.
        writes: the paths and patterns that these files are of.
        read: the digests of files outside the run that it read and later stages read too.
    """

    files: Mapping[str, str]
    stamps: Mapping[str, list[int]]
    writes: Sequence[str]
    read: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """What a run has produced, and how far it is.

    Attributes:
        folder: its path.
    """

    folder: Path

    @property
    def state_file(self) -> Path:
        """The finished stages, and what they found."""
        return self.folder / "state.json"

    @property
    def private(self) -> Path:
        """Whatever holds records or old values: gradient store, answers, salt; mode 0700."""
        return self.folder / "private"

    @property
    def last_good(self) -> Path:
        """The last good weights of a training run that broke off, until one succeeds."""
        return self.folder / "last-good"

    @cached_property
    def state(self) -> dict[str, Any]:
        """The content of ``state.json``, kept up to date by ``finish``: ``stages`` and ``seals``."""
        if not self.state_file.exists():
            return {"stages": {}}
        from wagle.report.files import read_state

        return read_state(self.state_file)

    @property
    def seals(self) -> dict[str, Seal]:
        """The seals of the finished stages that have one."""
        found = self.state.get("seals", {})
        known = [one.name for one in fields(Seal)]
        return {
            name: Seal(**{key: found[name][key] for key in known if key in found[name]})
            for name in self.state["stages"]
            if name in found
        }

    def outside(self, stage: str, needs: Sequence[str] = ()) -> dict[str, Path]:
        """Model folders outside the run that a stage reads, by the stage that reads each first."""
        del stage, needs
        return {}

    @cached_property
    def _hashed(self) -> dict[Path, tuple[tuple[int, ...], str]]:
        """The files that this process has hashed, as they were then."""
        return {}

    def holds(self, home: Path, name: str, digest: str) -> bool:
        """Whether a file has a digest; one that this process hashed and nobody touched is not read."""
        path = home / name
        if not path.is_file():
            return False
        now = marks(path)
        if self._hashed.get(path) != (now, digest):
            if file_digest(home, name) != digest:
                return False
            self._hashed[path] = (now, digest)
        return True

    def carry_out(
        self,
        name: str,
        work: Callable[[], dict[str, Any]],
        writes: Sequence[str] | None = None,
    ) -> None:
        """Run a stage and enter it with its seconds and the process's peak memory so far.

        Args:
            name: the stage.
            work: does it, and returns what ``state.json`` should say.
            writes: what it may leave, as in the table of stages: these files are sealed; None makes
                no seal.
        """
        from wagle.system.memory import give_memory_back

        stop_if_asked()
        started = time.perf_counter()
        with disk_errors(self.folder, others=False):
            details = work()
        give_memory_back()
        seconds = round(time.perf_counter() - started, 2)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self.finish(name, {"seconds": seconds, "peak_bytes": peak, **details}, writes)

    def finish(
        self, stage: str, details: Mapping[str, Any], writes: Sequence[str] | None = None
    ) -> None:
        """Enter a finished stage and seal what it wrote; without ``writes`` there is no seal."""
        self.state["stages"][stage] = dict(details)
        if writes is not None:
            files = seal(self.folder, writes)
            read = self._seal_outside(stage)
            made = Seal(files, large_stamps(self.folder, files), list(writes), read)
            for name, digest in files.items():
                self._hashed[self.folder / name] = (marks(self.folder / name), digest)
            self.state.setdefault("seals", {})[stage] = asdict(made)
        self.save_state()

    def _seal_outside(self, stage: str) -> dict[str, str]:
        """The digests of a model folder outside the run that a stage is the first to read."""
        home = self.outside(stage).get(stage)
        return {} if home is None else seal(home, ["*.safetensors", "config.json"])

    def save_state(self) -> None:
        """Write ``state.json`` with the digest of its own content."""
        write_json(self.state_file, {**self.state, "seal": content_digest(self.state)})

    def forget_stages(self, stages: Sequence[str]) -> None:
        """Make stages unfinished again, and drop their seals, in memory."""
        for name in stages:
            self.state["stages"].pop(name, None)
            self.state.get("seals", {}).pop(name, None)

    @property
    def deleted(self) -> tuple[str, ...]:
        """Files and folders (with a slash at the end) that were deleted on purpose."""
        return tuple(self.state.get("deleted", ()))

    def enter_deleted(self, names: Sequence[str]) -> None:
        """Enter files, or folders with a slash at the end, that were deleted on purpose.

        Their seals stay, and say what was there; that they are missing is no finding.
        """
        self.state["deleted"] = sorted({*self.deleted, *names})
        self.save_state()

    def intact(self, names: Iterable[str]) -> list[str]:
        """Those of some files that are sealed and still what their stage wrote."""
        known = [made.files for made in self.seals.values()]
        return [
            name
            for name in names
            if any(name in files and is_intact(self.folder, name, files[name]) for files in known)
        ]

    def reseal(self, names: Iterable[str]) -> None:
        """Seal files anew that were rewritten on purpose, wherever they are sealed."""
        for made in self.state.get("seals", {}).values():
            for name in names:
                if name in made["files"]:
                    made["files"][name] = file_digest(self.folder, name)
        self.save_state()

    def log(self, stage: str, figures: Mapping[str, Any]) -> None:
        """Append a line to ``log.jsonl``."""
        append_line(self.folder / "log.jsonl", {"stage": stage, **figures})

    def logged(self, stage: str | None = None) -> list[dict[str, Any]]:
        """The lines of ``log.jsonl``, for one stage or all; a line that was cut off is left out."""
        path = self.folder / "log.jsonl"
        text = read_bytes(path).decode(errors="replace") if path.exists() else ""
        lines = [line for one in text.split("\n") if (line := _line(one)) is not None]
        return [line for line in lines if stage in (None, line["stage"])]

    def forget_log(self, stage: str) -> None:
        """Remove the lines of a stage that starts over."""
        self._write_log([line for line in self.logged() if line["stage"] != stage])

    def log_steps(self, stage: str, history: Sequence[Mapping[str, Any]]) -> None:
        """Replace a stage's logged steps: a stage that resumed had logged only its last part."""
        other = [x for x in self.logged() if x["stage"] != stage or "step" not in x]
        self._write_log([*other, *({"stage": stage, **figures} for figures in history)])

    def _write_log(self, kept: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
        write_text(self.folder / "log.jsonl", text)

    def warnings(self) -> list[str]:
        """The stages' warnings, each once."""
        return list(dict.fromkeys(x["warning"] for x in self.logged() if "warning" in x))

    def _refuse_a_gap(self, name: str) -> None:
        """Refuse a stage that is finished, but whose evaluation is gone."""
        done = self.state["stages"].get(name) if name in ("before", "after") else None
        if done is not None and done.get("skipped") is None:
            raise WagleError(
                f"{self.folder / 'evaluation' / name}.json is missing, but the stage {name} is "
                f"finished; put it back, or make it again: wagle run {self.folder} --again {name}"
            )

    def evaluation(self, role: str, benchmark: str | None = None) -> Evaluation | None:
        """One of the evaluations, if it exists: on the recipe's sets, or on a benchmark."""
        name = role if benchmark is None else f"{role}-{benchmark}"
        path = self.folder / "evaluation" / f"{name}.json"
        if not path.exists():
            self._refuse_a_gap(name)
            return None
        place = f"evaluation/{name}.json"
        for stage, made in self.seals.items():
            if place in made.files and not is_intact(self.folder, place, made.files[place]):
                raise WagleError(f"{path} was edited since the stage {stage} wrote it; put it back")
        from wagle.evaluation.result import read_evaluation

        return read_evaluation(path)


def _line(text: str) -> dict[str, Any] | None:
    """A line of the log; None if it was cut off while it was written, or is not one of wagle's."""
    try:
        found = parse_json(text, "a line", finite=False)
    except WagleError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("stage"), str):
        return None
    numbers = [found[name] for name in ("step", *_DRAWN) if found.get(name) is not None]
    plain = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    whole = "step" not in found or isinstance(found["step"], int)
    return found if plain and whole and isinstance(found.get("warning", ""), str) else None
