"""Files of tensors: masks, patches and gradient stores."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

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
    from wagle.system.files import checked, tensors

    header, rest = split_tensors(data)
    told = json.loads(header["__metadata__"]["wagle"])
    told.pop("checksum", None)
    with tensors.TensorFile(path) as file:
        told["checksum"] = checked._checksum(checked._file_digest(file), told)
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


def _digested(header: Any, rest: bytes) -> bytes:
    """A tensor file with the right digest, if it still has a place for one."""
    from wagle.system.files.tensors import _BLANK, _DIGEST

    try:
        told = json.loads(header["__metadata__"]["wagle"])
        header["__metadata__"]["wagle"] = json.dumps({**told, _DIGEST: _BLANK})
    except (KeyError, TypeError, ValueError):
        return join_tensors(json_text(header), rest)
    data = join_tensors(json_text(header), rest)
    digest = hashlib.sha256(data[8:]).hexdigest()
    return data.replace(_BLANK.encode(), digest.encode(), 1)


class StoreFiles(Kind):
    """A gradient store with its ``store.json`` or one of its tensor files changed."""

    def __init__(self, examples: Path, work: Path) -> None:
        from wagle.model.weights import fingerprint
        from wagle.system.files.seals import content_digest

        self.folder = work / "gradients"
        shutil.copytree(examples / "run" / "private" / "gradients", self.folder)
        told = json.loads((self.folder / "store.json").read_text())
        told.pop("digest", None)
        model = str(examples / "model")  # that of the run is not there any more
        told["model"] |= {"folder": model, "fingerprint": fingerprint(model)}
        told["digest"] = content_digest(told)
        (self.folder / "store.json").write_text(json.dumps(told))
        self.files = {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}
        self.changed = "store.json"

    def write(self, rng: Random) -> str:
        (self.folder / self.changed).write_bytes(self.files[self.changed])
        self.changed = name = rng.choice(["store.json"] * 3 + sorted(self.files))
        sealed = rng.random() < 0.7
        made = self._described(rng, sealed) if name == "store.json" else self._held(rng, sealed)
        (self.folder / name).write_bytes(made)
        return name

    def _described(self, rng: Random, sealed: bool) -> bytes:
        """Another ``store.json``, with its own digest."""
        from wagle.system.files.seals import content_digest

        text = self.files["store.json"].decode()
        if not sealed:
            return mutate_json(rng, text)
        told = json.loads(text)
        told.pop("digest", None)
        made = json_text(mutate_value(rng, told))
        try:
            whole = json.loads(made)
            if isinstance(whole, dict):
                made = json_text({**whole, "digest": content_digest(whole)})
        except (ValueError, RecursionError):
            pass
        return made.encode("utf-8", "surrogatepass")

    def _held(self, rng: Random, sealed: bool) -> bytes:
        """Another file of tensors, with its own digest."""
        data = self.files[self.changed]
        if not sealed or self.changed == "salt":
            return mutate_bytes(rng, data)
        header, rest = split_tensors(data)
        if rng.random() < 0.6:
            header = mutate_value(rng, header)
        else:
            rest = mutate_bytes(rng, rest)
        return _digested(header, rest)

    def use(self) -> None:
        from wagle.attribution.store import GradientStore

        store = GradientStore.open(self.folder)
        store.check_weights()
        for kind in store.metadata["quantities"]:
            for name in store.shapes:
                if store.has(kind, name):
                    store.get(kind, name).sum()
