"""Files of tensors: masks, patches and gradient stores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random

from bench.fuzzing.kind import Kind
from bench.fuzzing.mutations import (
    join_tensors,
    json_text,
    mutate_bytes,
    mutate_json,
    mutate_tensors,
    mutate_value,
    split_tensors,
)


class _Tensors(Kind):
    """A file in a format of wagle's, in most cases with the checksum that it should have."""

    name: str

    def __init__(self, examples: Path, work: Path) -> None:
        self.data = (examples / self.name).read_bytes()
        self.path = work / "mutant.safetensors"

    def write(self, rng: Random) -> str:
        data = mutate_tensors(rng, self.data)
        self.path.write_bytes(data)
        if rng.random() < 0.7:
            try:
                self.path.write_bytes(_checked(self.path, data))
                return "with its checksum"
            except Exception:  # noqa: BLE001 - what cannot be opened has no checksum
                return "plain"
        return "plain"


def _checked(path: Path, data: bytes) -> bytes:
    """The same file with the right checksum."""
    from wagle.system import tensors

    header, rest = split_tensors(data)
    told = json.loads(header["__metadata__"]["wagle"])
    told.pop("checksum", None)
    with tensors.TensorFile(path) as file:
        told["checksum"] = tensors._checksum(tensors._file_digest(file), told)
    header["__metadata__"]["wagle"] = json.dumps(told)
    return join_tensors(json.dumps(header, ensure_ascii=False), rest)


class MaskFile(_Tensors):
    name = "run/mask.safetensors"

    def use(self) -> None:
        from wagle.mask.mask import Mask
        from wagle.report.text.mask import mask_json, mask_table, scores_table

        mask = Mask.load(self.path)
        mask_table(mask)
        json.dumps(mask_json(mask))
        scores_table(mask)
        for by in ("block", "kind", "parameter"):
            mask.densities(by)
        for name in mask:
            mask.level(name)
        for ratio in mask.ratios:
            mask.at(float(ratio)).digest()


class PatchFile(_Tensors):
    name = "run/patch.safetensors"

    def use(self) -> None:
        import torch

        from wagle.patch.file import Patch

        patch = Patch.load(self.path)
        for name, change in patch.tensors.items():
            if change.size < 1 << 22:
                kind = getattr(torch, change.dtype, torch.float32)
                patch.patched(name, torch.zeros(change.shape, dtype=kind))


class StoreFiles(Kind):
    """A gradient store with its ``store.json`` or one of its tensor files changed."""

    def __init__(self, examples: Path, work: Path) -> None:
        self.folder = work / "gradients"
        shutil.copytree(examples / "run" / "private" / "gradients", self.folder)
        told = json.loads((self.folder / "store.json").read_text())
        told["model"]["folder"] = str(examples / "model")
        (self.folder / "store.json").write_text(json.dumps(told))
        self.files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        self.changed = "store.json"

    def write(self, rng: Random) -> str:
        (self.folder / self.changed).write_bytes(self.files[self.changed])
        self.changed = name = rng.choice(["store.json"] * 2 + sorted(self.files))
        if name == "store.json":
            made = mutate_json(rng, self.files[name].decode())
        elif rng.random() < 0.5:
            header, rest = split_tensors(self.files[name])
            made = join_tensors(json_text(mutate_value(rng, header)), rest)
        else:
            made = mutate_bytes(rng, self.files[name])
        (self.folder / name).write_bytes(made)
        return name

    def use(self) -> None:
        from wagle.attribution.store import GradientStore

        store = GradientStore.open(self.folder)
        store.check_weights()
        for kind in store.metadata["quantities"]:
            for name in store.shapes:
                if store.has(kind, name):
                    store.get(kind, name).sum()
