"""Data sets of the hub: from its cache, or from the hub itself where that may be asked.

A process asks the hub unless ``HF_HUB_OFFLINE=1`` is set; the command line sets that by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wagle.compat.datasets import hub_is_offline
from wagle.system.errors import WagleError

if TYPE_CHECKING:
    from datasets import Dataset

_COMMIT = re.compile(r"@([0-9a-f]{40})/")
_MOST = 300  # characters of another library's message


@dataclass
class HubSet:
    """A data set of the hub, by its name.

    Attributes:
        name: ``owner/name``.
        revision: a commit, a tag or a branch; None: main.
        commit: the one that was read; None before, and where the cache does not tell.
    """

    name: str
    revision: str | None = None
    commit: str | None = None

    @property
    def used(self) -> str:
        """The revision that was read: its commit, else the name it was asked for by."""
        return self.commit or self.revision or "main"

    def read(self, config: str, splits: Sequence[str]) -> Dataset:
        """The first of some splits that there is.

        Args:
            config: one of the data set's configurations.
            splits: names of one and the same split.

        Raises:
            WagleError: none can be read, or the cache holds another revision. The message says
                what was looked for and how to get it.
        """
        found, why = self.find(config, splits)
        if found is not None:
            return found
        wanted = " or ".join(splits)
        at = "" if self.revision is None else f" at revision {self.revision}"
        raise WagleError(
            explain(
                f"{self.name} is no folder here, and of the hub's data set {config} ({wanted}){at} "
                "cannot be read",
                why,
                "give the folder of a local copy: data=FOLDER",
            )
        )

    def find(self, config: str, splits: Sequence[str]) -> tuple[Dataset | None, str]:
        """The first of some splits that there is, or None and why none can be read.

        Args:
            config: one of the data set's configurations.
            splits: names of one and the same split.

        Raises:
            WagleError: the cache holds another revision.
        """
        from datasets import load_dataset

        from wagle.compat.datasets import DatasetsError

        whys: list[str] = []
        for split in splits:
            try:
                found = load_dataset(self.name, config, split=split, revision=self.revision)
            except (OSError, ValueError, KeyError, RuntimeError, ImportError, DatasetsError) as e:
                whys.append(_reason(e))
                continue
            self._note_commit(found)
            return found, ""
        return None, "; ".join(dict.fromkeys(whys))

    def _note_commit(self, found: Dataset) -> None:
        """Take down which commit was read; another one than was asked for is an error.

        Without the hub the library takes what the cache holds, whatever the revision.
        """
        urls = getattr(getattr(found, "info", None), "download_checksums", None) or {}
        commits = {match[1] for url in urls if (match := _COMMIT.search(str(url)))}
        if len(commits) != 1:
            return
        (self.commit,) = commits
        asked = self.revision or ""
        if re.fullmatch("[0-9a-f]{40}", asked) and asked != self.commit:
            raise WagleError(
                f"the hub's cache holds revision {self.commit} of {self.name}, not {asked}; "
                "set HF_HUB_OFFLINE=0 to ask the hub for it, or change revision"
            )


def open_source(
    data: str | Path, hub: str, revision: str | None = None, *, what: str = "a local copy"
) -> Path | HubSet:
    """A folder as it is, or a data set of the hub by its name.

    Args:
        data: a folder, or a hub name: ``owner/name``.
        hub: the name on the hub of what is wanted, for the message.
        revision: of the hub.
        what: a folder has to hold, for the message.

    Raises:
        WagleError: neither a folder nor a hub name; a revision of a folder.
    """
    if Path(data).is_dir():
        if revision is not None:
            raise WagleError(
                f"revision is of a data set of the hub; {data} is a folder, leave it out"
            )
        return Path(data)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(data)):
        raise WagleError(
            f"{data} is no folder; data: give a folder with {what}, or its name on the hub, {hub}"
        )
    return HubSet(str(data), revision)


def explain(what: str, why: str, local: str) -> str:
    """One line about a data set that cannot be read: what, why, and the ways to get it.

    Args:
        what: cannot be read.
        why: another library's reason.
        local: how to give a copy.
    """
    if "gated" in why.lower():
        return (
            f"{what}: it is gated ({why}): ask for access on its page on the hub and log in with "
            f"'hf auth login', or {local}"
        )
    return f"{what}: {why}; {local}{_offline()}"


def _offline() -> str:
    """How to let the hub be asked, where it may not be."""
    if not hub_is_offline():
        return ""
    return (
        "; the hub itself was not asked, for HF_HUB_OFFLINE is set (by the command line too): set "
        "HF_HUB_OFFLINE=0 to let it be asked"
    )


def _reason(error: BaseException) -> str:
    """An error of another library in one line, with what caused it."""
    texts: list[Any] = [error, *([error.__cause__] if error.__cause__ is not None else [])]
    whys = [" ".join(str(text).split()) or type(text).__name__ for text in texts]
    named = [
        why if str(text) else type(text).__name__ for text, why in zip(texts, whys, strict=True)
    ]
    whole = ", ".join(dict.fromkeys(named))
    return whole if len(whole) <= _MOST else f"{whole[:_MOST]}..."
