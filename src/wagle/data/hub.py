"""Data sets from the hub: from its local cache, or from the hub itself where access is allowed.

A process accesses the hub unless ``HF_HUB_OFFLINE=1`` is set; the command line sets it by default.
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
    """A data set on the hub, by its name.

    Attributes:
        name: ``owner/name``.
        revision: a commit, a tag or a branch; None means main.
        commit: the commit that was read; None before that, or if the cache does not say.
    """

    name: str
    revision: str | None = None
    commit: str | None = None

    @property
    def used(self) -> str:
        """The revision that was read: its commit if known, else the revision asked for."""
        return self.commit or self.revision or "main"

    def read(self, config: str, splits: Sequence[str]) -> Dataset:
        """Read the first of some splits that exists.

        Args:
            config: one of the data set's configurations.
            splits: alternative names for the same split.

        Raises:
            WagleError: none can be read, or the cache holds another revision. The message says
                what was wanted and how to get it.
        """
        found, why = self.find(config, splits)
        if found is not None:
            return found
        wanted = " or ".join(splits)
        at = "" if self.revision is None else f" at revision {self.revision}"
        raise WagleError(
            explain(
                f"{self.name} is not a local folder, and the hub's data set {config} "
                f"({wanted}){at} cannot be read",
                why,
                "give the folder of a local copy: data=FOLDER",
            )
        )

    def find(self, config: str, splits: Sequence[str]) -> tuple[Dataset | None, str]:
        """The first of some splits that exists, or None and why none can be read.

        Args:
            config: one of the data set's configurations.
            splits: alternative names for the same split.

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
        """Note which commit was read; if it is not the one asked for, that is an error.

        Offline, the library takes whatever the cache holds, regardless of the revision.
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
    """A local folder, or a data set on the hub by its name.

    Args:
        data: a folder, or a hub name: ``owner/name``.
        hub: the hub name of the data that is wanted, for the message.
        revision: the revision on the hub.
        what: what a folder must hold, for the message.

    Raises:
        WagleError: neither a folder nor a hub name; a revision given with a folder.
    """
    if Path(data).is_dir():
        if revision is not None:
            raise WagleError(
                f"revision applies only to data sets on the hub; {data} is a folder: leave it out"
            )
        return Path(data)
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(data)):
        raise WagleError(
            f"{data} is not a folder; set data to a folder with {what}, or to its hub name, {hub}"
        )
    return HubSet(str(data), revision)


def explain(what: str, why: str, local: str) -> str:
    """One line about a data set that cannot be read: what, why, and how to get it.

    Args:
        what: what cannot be read.
        why: the other library's reason.
        local: how to give a copy.
    """
    if "gated" in why.lower():
        return (
            f"{what}: it is gated ({why}): ask for access on its hub page and log in with "
            f"'hf auth login', or {local}"
        )
    return f"{what}: {why}; {local}{_offline()}"


def _offline() -> str:
    """How to allow access to the hub, where it is off."""
    if not hub_is_offline():
        return ""
    return (
        "; the hub itself was not asked because HF_HUB_OFFLINE is set (the command line sets it "
        "too): set HF_HUB_OFFLINE=0 to allow it"
    )


def _reason(error: BaseException) -> str:
    """Another library's error in one line, with its cause."""
    texts: list[Any] = [error, *([error.__cause__] if error.__cause__ is not None else [])]
    whys = [" ".join(str(text).split()) or type(text).__name__ for text in texts]
    named = [
        why if str(text) else type(text).__name__ for text, why in zip(texts, whys, strict=True)
    ]
    whole = ", ".join(dict.fromkeys(named))
    return whole if len(whole) <= _MOST else f"{whole[:_MOST]}..."
