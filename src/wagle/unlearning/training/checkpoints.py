"""Checkpoints of a training run: masters, optimiser and figures, written atomically, no pickle.

All processes of a run call the same methods; rank 0 writes, and all read.

``last`` is where a killed run resumes. ``good`` is the one before it, kept until a later loss has
shown that the weights of ``last`` are good. ``best`` holds masters only. A run resumes from the
model as it was at the start: what is not selected never moved.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from wagle.system.errors import WagleError
from wagle.system.files.atomic import disk_errors
from wagle.system.files.checked import open_checked, save_checked
from wagle.system.files.secrets import private_folder
from wagle.system.mapped import Lazy
from wagle.system.processes import group
from wagle.unlearning.training.optimizers import load_optimizer, save_optimizer
from wagle.unlearning.training.weights.selected import SelectedWeights

FORMAT = "wagle-checkpoint/1"


def clear_checkpoints(folder: Path) -> None:
    """Delete a folder's checkpoints once its run is saved; what trackers wrote there stays."""
    with disk_errors(folder):
        for path in folder.glob("*.safetensors"):
            path.unlink()


def _further(selected: SelectedWeights, more: Mapping[str, Tensor], name: str) -> Tensor:
    return selected.whole(name.rpartition("@")[2], more[name])


class Checkpoints:
    """The checkpoint files of one run in one folder, closed after use.

    Args:
        folder: private, created if needed; None is a temporary one that lasts as long as this
            process.
        key: identifies the run: model, data, settings; another run's files are refused.

    Attributes:
        lasting: whether they outlive the process.
    """

    def __init__(self, folder: Path | None, key: Mapping[str, Any]) -> None:
        self.lasting = folder is not None
        self.key: dict[str, Any] = json.loads(json.dumps(dict(key)))  # as it will be read back
        main = group.main_process()
        temporary = folder is None and main
        self._scratch = tempfile.TemporaryDirectory(prefix="wagle-") if temporary else None
        self.folder = group.from_main(folder or Path(self._scratch.name if self._scratch else ""))
        if main:
            private_folder(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def has(self, name: str) -> bool:
        """Whether there is a checkpoint of this name."""
        return group.from_main(self._path(name).is_file())

    def save(
        self,
        name: str,
        selected: SelectedWeights,
        state: Mapping[str, Any],
        optimizer: Optimizer | None = None,
        more: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write the masters, the optimiser if given, ``more`` tensors and ``state``."""
        makers: dict[str, Callable[[], Tensor]] = {
            f"master::{n}": partial(selected.whole, n, t) for n, t in selected.masters().items()
        }
        # a name in ``more`` may say more than which parameter it belongs to: NAME@PARAMETER
        for n in more or ():
            makers[f"more::{n}"] = partial(_further, selected, more or {}, n)
        rest: dict[str, Any] = {}
        if optimizer is not None:
            kept, rest = save_optimizer(optimizer, selected.sizes_of(optimizer))
            owners = selected.owners(optimizer)
            for n, t in kept.items():
                owner = owners[int(n.partition("::")[0])]
                whole = t.detach if t.dim() == 0 else partial(selected.whole, owner, t)
                makers[f"optimizer::{n}"] = whole
        # those of a model in shards come from all processes: made once, by all of them
        made = {n: make() for n, make in makers.items()} if selected.sharded else Lazy(makers)
        metadata = {"key": self.key, "state": dict(state), "optimizer": rest}

        def write() -> None:
            if group.main_process():
                save_checked(self._path(name), made, metadata, FORMAT, private=True)

        group.agreed(write)

    def load(
        self, name: str, selected: SelectedWeights, optimizer: Optimizer | None = None
    ) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor], dict[str, Any]]:
        """The masters, the further tensors and the state of a checkpoint.

        The optimiser, if given, is restored. Tensors are read when they are asked for.

        Raises:
            WagleError: the file is another run's, or does not fit the selected weights.
        """
        path = self._path(name)
        try:
            file, metadata = open_checked(path, "checkpoint", FORMAT)
        except WagleError as error:
            reason = str(error).rpartition(";")[0] or error
            raise WagleError(
                f"{reason}; delete it: training then resumes from an earlier one, or starts over"
            ) from None
        if metadata["key"] != self.key:
            differ = [k for k in self.key if metadata["key"].get(k) != self.key[k]]
            raise WagleError(
                f"checkpoint {path} belongs to another run ({', '.join(differ) or 'key'} differs); "
                "delete its folder, or choose another one"
            )
        names: dict[str, dict[str, str]] = {"master": {}, "more": {}, "optimizer": {}}
        for key in file.names:
            kind, _, own = key.partition("::")
            names[kind][own] = key
        sizes = {n: sum(own) for n, own in selected.sizes.items()}
        if {n: math.prod(file.shape(key)) for n, key in names["master"].items()} != sizes:
            raise WagleError(f"checkpoint {path} does not fit the selected weights; delete it")

        def part(owner: str, key: str) -> Tensor:
            return selected.part(owner, file.read_all(key))

        if optimizer is not None:
            owners = selected.owners(optimizer)
            held = {
                n: selected.where.put(
                    part(owners[int(n.partition("::")[0])], key)
                    if file.shape(key)
                    else file.read_all(key)
                )
                for n, key in names["optimizer"].items()
            }
            load_optimizer(optimizer, held, metadata["optimizer"], selected.sizes_of(optimizer))
        masters = Lazy({n: partial(part, n, key) for n, key in names["master"].items()})
        more = {n: partial(part, n.rpartition("@")[2], key) for n, key in names["more"].items()}
        return masters, Lazy(more), metadata["state"]

    def rename(self, name: str, new: str) -> None:
        """Rename a checkpoint, if it exists."""
        if group.main_process() and self._path(name).is_file():
            with disk_errors(self._path(new)):
                self._path(name).replace(self._path(new))
        group.wait()

    def drop(self, name: str) -> None:
        """Delete a checkpoint, if it exists."""
        if not group.main_process():
            return
        with disk_errors(self._path(name)):
            self._path(name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all of them."""
        if group.main_process():
            clear_checkpoints(self.folder)
        group.wait()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
