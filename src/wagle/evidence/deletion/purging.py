"""Purging a run: everything that holds records or old values is deleted, with a receipt.

What goes: the private folders, the model that was taught the records (its weights hold them), what
broken-off stages left, and texts in report, recipe and log. What stays is the unlearned model,
mask, patch, figures, and the ledger, which gets the receipt.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wagle.evidence.commitment import SECRET
from wagle.evidence.deletion.sweeping import Sweep, texts_of
from wagle.recipe.reading import dump_recipe, load_recipe
from wagle.recipe.recipe import Recipe
from wagle.report.disclosure import public_recipe
from wagle.report.files import read_answers
from wagle.run.ledger import FILE as LEDGER
from wagle.run.ledger import PURGE, add_receipt
from wagle.run.opening import Run
from wagle.system.errors import WagleError
from wagle.system.files.atomic import disk_errors, locked, write_text
from wagle.system.files.seals import sha256_of
from wagle.system.files.secrets import keyed_digest

logger = logging.getLogger(__name__)

_ALWAYS = ("private", "last-good", "controls/*/private", "controls/*/model", SECRET)
_KNOWS = ("base", "start")  # models that were taught the records, if they lie in the run


def purge_run(
    folder: str | Path,
    *,
    keep_base: bool = False,
    dry_run: bool = False,
    receipt_key: str | Path | None = None,
) -> dict[str, Any]:
    """Delete everything in a run folder that holds records or old values.

    Args:
        folder: the run folder, finished or not.
        keep_base: keep the model before unlearning, which knows the records.
        dry_run: only say what would be done.
        receipt_key: where to write the key of the receipt's digests; None: nobody gets it.

    Returns:
        The receipt: ``deleted`` and ``rewritten`` files, and ``left``, those that still hold text
        of records and have to be dealt with by hand.

    Raises:
        WagleError: this is no run folder, or another process works in it.
    """
    path = Path(folder)
    if not (path / "recipe.yaml").is_file():
        raise WagleError(f"{folder} is not a run folder: it has no recipe.yaml")
    if receipt_key is not None and Path(receipt_key).exists():
        raise WagleError(f"{receipt_key} exists; a key is never overwritten: name another file")
    with locked(path):
        run = Run(path, load_recipe(path / "recipe.yaml"))
        sweep = Sweep(_texts(run))
        gone = [p for p in _doomed(path, keep_base) if p.exists()]
        names = [p.relative_to(path).as_posix() for p in gone]
        tainted = sweep.files(path, names) if sweep else []
        changed = _changed(run, tainted)
        if not gone and not changed:
            return _receipt(path, [], {}, tainted, None, keep_base)
        key = secrets.token_bytes(32)
        deleted = [_entry(path, one, b"" if dry_run else key) for one in gone]
        found = _receipt(path, deleted, changed, tainted, _base_of(run), keep_base)
        if not dry_run:
            if receipt_key is not None:
                write_text(receipt_key, key.hex() + "\n", private=True)
            _carry_out(run, gone, changed, found, sweep)
        return found


def _doomed(folder: Path, keep_base: bool) -> list[Path]:
    """What is deleted whole, and what a killed process left half-written."""
    patterns = [*_ALWAYS, *(() if keep_base else _KNOWS)]
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    inside = {*found}
    parts = [p for p in sorted(folder.rglob("*.part")) if not inside & {p, *p.parents}]
    return [*found, *parts]


def _texts(run: Run) -> set[str]:
    """What the records say, as far as they can still be read."""
    texts: set[str] = set()
    for path in sorted(run.private.glob("answers-*.json")):
        for said in read_answers(path).values():
            texts |= {one[key] for one in said for key in ("question", "expected")}
    quiet = logging.getLogger("wagle")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # what a run warns of is not news
    try:
        return texts | texts_of(record for one in run.inputs.sets.values() for record in one)
    except WagleError as error:
        if not texts and run.private.exists():
            logger.error("the records cannot be read again, so texts are not looked for: %s", error)
        return texts
    finally:
        quiet.setLevel(level)


def _changed(run: Run, tainted: Iterable[str]) -> dict[str, str]:
    """Which files are rewritten without texts, and why."""
    found = {}
    if dump_recipe(_bare(run.recipe)) != dump_recipe(run.recipe):
        found["recipe.yaml"] = "without show_text and what attacks were given record by record"
    report = "report.html"
    shown = run.recipe.report.show_text or report in tainted
    if "report" in run.state["stages"] and shown and (run.folder / report).is_file():
        found[report] = "without texts"
    if "log.jsonl" in tainted:
        found["log.jsonl"] = "without the lines that hold text"
    return found


def _bare(recipe: Recipe) -> Recipe:
    """The recipe without texts, and without showing any."""
    report = recipe.report.model_copy(update={"show_text": False})
    silent: Recipe = recipe.model_copy(update={"report": report})
    return public_recipe(silent)


def _entry(folder: Path, path: Path, key: bytes) -> dict[str, Any]:
    """What the receipt says of something deleted; its digest is keyed."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digests = [f"{p.relative_to(folder)} {sha256_of(p)}" for p in files] if key else []
    return {
        "path": path.relative_to(folder).as_posix() + ("/" if path.is_dir() else ""),
        "files": len(files),
        "bytes": sum(p.stat().st_size for p in files),
        "digest": keyed_digest(key, digests) if key else None,
    }


def _base_of(run: Run) -> str | None:
    """The fingerprint of the model before unlearning, as its evaluation recorded it."""
    before = run.evaluation("before")
    return None if before is None else before.details["model"]["fingerprint"]


def _receipt(
    folder: Path,
    deleted: list[dict[str, Any]],
    changed: dict[str, str],
    tainted: list[str],
    base: str | None,
    keep_base: bool,
) -> dict[str, Any]:
    """The receipt, as the ledger keeps it."""
    notes = []
    if any(one["path"] in ("base/", "start/") for one in deleted):
        notes.append(
            f"the patch needs its base {(base or '?')[:12]}, which is not in the run any more"
        )
    elif keep_base and (folder / "base").is_dir():
        notes.append("base/ was kept: its weights know the records")
    left = [name for name in tainted if name not in changed]
    return {
        "schema": PURGE,
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "wagle": version("wagle"),
        "deleted": deleted,
        "rewritten": [{"path": path, "why": why} for path, why in changed.items()],
        "base": base,
        "left": left,
        "notes": notes + [f"{name} still holds text of records: delete it" for name in left],
    }


def _carry_out(
    run: Run, gone: list[Path], changed: dict[str, str], found: dict[str, Any], sweep: Sweep
) -> None:
    """Rewrite, delete, and enter the receipt; a purge that is killed is simply made again."""
    bare = Run(run.folder, _bare(run.recipe))
    intact = bare.intact([*changed, LEDGER])  # an edited file must not come out sealed
    bare.state["purged"] = {"when": found["when"], **bare.state.get("purged", {})}
    bare.enter_deleted(_names(run.folder, gone))  # from here on, no stage resumes
    if "recipe.yaml" in changed:
        write_text(run.folder / "recipe.yaml", dump_recipe(bare.recipe))
    if "log.jsonl" in changed:
        lines = (run.folder / "log.jsonl").read_bytes().split(b"\n")
        kept = b"\n".join(line for line in lines if not sweep.finds(line))
        write_text(run.folder / "log.jsonl", kept.decode("utf-8", errors="replace"))
    if "report.html" in changed:  # after the log, whose warnings it shows
        from wagle.run.stages.measuring.report import report

        report(bare)
    with disk_errors(run.folder):
        for path in gone:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if (run.folder / LEDGER).is_file():
        add_receipt(run.folder, found)
    bare.state["purged"]["receipt"] = found
    bare.reseal([name for name in intact if (run.folder / name).is_file()])


def _names(folder: Path, gone: Iterable[Path]) -> list[str]:
    """What is deleted, as the run enters it: a folder with a slash at the end."""
    return [p.relative_to(folder).as_posix() + ("/" if p.is_dir() else "") for p in gone]
