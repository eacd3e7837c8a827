"""Packs of evidence on disk: a folder or a zip, its manifest, and reading it with suspicion.

A pack is small (it holds figures, no weights), so it is handled in memory as a mapping from names
to bytes. ``manifest.json`` lists SHA-256 of every other file; its root, the digest of that list, is
what the signature signs.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wagle.system.errors import Refused, WagleError
from wagle.system.files.atomic import atomic_file, atomic_folder
from wagle.system.files.reading import decoded, parse_json

SCHEMA = "wagle-evidence/1"
MANIFEST, SIGNATURE, PUBLIC = "manifest.json", "signature.json", "public-key.pem"
_UNLISTED = (MANIFEST, SIGNATURE)
PARTS = (  # every file that a pack must have
    "CLAIM.md",
    "LIMITS.md",
    "claim.json",
    "commitment.json",
    "environment.json",
    "evaluation/after.json",
    "evaluation/before.json",
    "ledger.json",
    "recipe.yaml",
    "reproduce.sh",
    PUBLIC,
)
_RESULT = re.compile(
    r"(evaluation|attacks|deploy|controls/[\w.-]+/(evaluation|attacks))/[\w.+@ -]+\.json"
)
MOST = 256 * 2**20  # bytes of a pack
_TIME = (2000, 1, 1, 0, 0, 0)  # of every file in a zip: equal packs are equal bytes

Files = Mapping[str, bytes]


def manifest_of(files: Files) -> dict[str, Any]:
    """The manifest of a pack's files: a digest each, and the root over all."""
    digests = {
        name: hashlib.sha256(files[name]).hexdigest()
        for name in sorted(files)
        if name not in _UNLISTED
    }
    return {"schema": SCHEMA, "files": digests, "root": root_digest(digests)}


def root_digest(digests: Mapping[str, str]) -> str:
    """SHA-256 over the lines ``DIGEST  NAME``, sorted by name: what ``sha256sum`` would print."""
    lines = "".join(f"{digests[name]}  {name}\n" for name in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def write_pack(files: Files, out: Path) -> None:
    """Write a pack atomically: a zip if the name ends in ``.zip``, else a folder.

    Raises:
        WagleError: there is something in its place already.
    """
    if out.exists():
        raise WagleError(f"{out} exists; a pack is never replaced: name another one with -o")
    if out.suffix == ".zip":
        with atomic_file(out) as part:
            part.write_bytes(_zipped(files))
        return
    with atomic_folder(out) as part:
        for name, data in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(data)


def _zipped(files: Files) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _TIME), files[name], zipfile.ZIP_DEFLATED)
    return made.getvalue()


def read_pack(path: str | Path) -> dict[str, bytes]:
    """The files of a pack, by name. Nothing is unpacked to disk.

    Raises:
        WagleError: there is no pack.
        Refused: a part is missing, or there is something that is not a part of a pack.
    """
    path = Path(path)
    if path.is_dir():
        found = {
            str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()
        }
        _check_names(found, sum(file.stat().st_size for file in found.values()))
        return {name: file.read_bytes() for name, file in found.items()}
    if not path.is_file():
        raise WagleError(f"there is no pack {path}: give the folder or the .zip of wagle evidence")
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [one for one in archive.infolist() if not one.is_dir()]
            _check_names([one.filename for one in inside], sum(one.file_size for one in inside))
            return {one.filename: archive.read(one) for one in inside}
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise WagleError(f"{path} is not a readable zip ({error})") from None


def _check_names(names: Any, size: int) -> None:
    found = list(names)
    if size > MOST:
        raise Refused(f"the pack is larger than {MOST >> 20} MB: it holds more than figures")
    if MANIFEST not in found:
        raise WagleError(f"this is not a pack of evidence: it has no {MANIFEST}")
    known = {*PARTS, *_UNLISTED}
    odd = [name for name in found if name not in known and not _RESULT.fullmatch(name)]
    if odd or len(set(found)) < len(found):
        twice = [name for name in found if found.count(name) > 1]
        name = (odd or twice)[0]
        raise Refused(
            f"{name} is not a part of a pack: probes, nonces and other files of the maker are not "
            "used"
        )
    missing = sorted(known - set(found))
    if missing:
        raise Refused(f"the pack has no {missing[0]}: it was taken out, or never there")


def check_manifest(files: Files) -> str:
    """The root digest of a pack whose files are those that its manifest lists.

    Raises:
        Refused: a file was changed, added or taken out, or the root is not that of the list.
    """
    told, own = json_of(files, MANIFEST), manifest_of(files)
    listed = told.get("files") if isinstance(told, dict) else None
    if not isinstance(listed, dict) or told.get("schema") != SCHEMA:
        raise Refused(f"{MANIFEST} is not a manifest of the format {SCHEMA}")
    for name in sorted({*listed, *own["files"]}):
        if listed.get(name) != own["files"].get(name):
            raise Refused(f"{name} is not the file that the manifest lists: it was changed")
    if told.get("root") != own["root"]:
        raise Refused("the root in the manifest is not that of its list: it was changed")
    root: str = own["root"]
    return root


def json_of(files: Files, name: str) -> Any:
    """The content of a JSON file of a pack.

    Raises:
        Refused: it is not JSON.
    """
    try:
        return parse_json(decoded(files[name], name), name)
    except WagleError as error:
        raise Refused(f"{error}: it was changed") from None
