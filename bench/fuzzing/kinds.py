"""The kinds of files that are fuzzed: how a mutant of each is made, and what is done with it.

A mutant is opened and then used, as a command would use it, up to what would start to compute.
"""

from __future__ import annotations

import json
import shutil
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Protocol

from bench.fuzzing.mutations import (
    join_tensors,
    json_text,
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_tensors,
    mutate_value,
    split_tensors,
)
from bench.fuzzing.pages import page_of, without_charts


class Kind(Protocol):
    """One kind of file.

    Args:
        examples: the folder of examples.
        work: an empty folder that this process alone writes to.
    """

    @abstractmethod
    def __init__(self, examples: Path, work: Path) -> None: ...

    def write(self, rng: Random) -> str:
        """Write a mutant; returns how it was made, in a word."""

    def use(self) -> None:
        """Open the mutant and use it."""


class _File(Kind):
    """A mutant that is one file."""

    names: tuple[str, ...]  # the examples
    mutate: Callable[[Random, str], bytes] = staticmethod(mutate_json)

    def __init__(self, examples: Path, work: Path) -> None:
        self.texts = {name: (examples / name).read_text() for name in self.names}
        self.work = work

    def write(self, rng: Random) -> str:
        name = rng.choice(self.names)
        self.path = self.work / f"mutant{Path(name).suffix}"
        self.path.write_bytes(self.mutate(rng, self.texts[name]))
        return name


def _mutate_yaml(rng: Random, text: str) -> bytes:
    """YAML changed as text or, since JSON is YAML, as a value."""
    import yaml

    if rng.random() < 0.6:
        return mutate_bytes(rng, text.encode())
    return json_text(mutate_value(rng, yaml.safe_load(text))).encode("utf-8", "surrogatepass")


class RecipeFile(_File):
    names = ("recipe.yaml", "recipe.yaml", "whole.yaml", "run/recipe.yaml")
    mutate = staticmethod(_mutate_yaml)

    def use(self) -> None:
        from wagle.recipe.reading import dump_recipe, load_recipe

        dump_recipe(load_recipe(self.path))


class _Records(_File):
    def use(self) -> None:
        from wagle.data.reading import read_records

        read_records(self.path, name="forget")


class RecordsJson(_Records):
    names = ("records/x.json",)


class RecordsLines(_Records):
    names = ("records/x.jsonl",)
    mutate = staticmethod(mutate_lines)


class RecordsTable(_Records):
    names = ("records/x.csv",)
    mutate = staticmethod(lambda rng, text: mutate_bytes(rng, text.encode()))


class ResultFile(_File):
    names = (
        *("run/evaluation/after.json", "run/evaluation/before.json"),
        *("logs/tofu.json", "logs/open_unlearning.json", "logs/muse.json"),
    )

    def use(self) -> None:
        from wagle.evaluation.peers.naming import FORMS
        from wagle.evaluation.peers.reading import read_result
        from wagle.report.text.evaluations import evaluation_table

        found = read_result(self.path, corpus="news")
        str(found)
        found.to_json()
        evaluation_table(found, everything=True)
        for form in FORMS.values():
            form(found.figures)


class AttackFile(_File):
    names = ("run/attacks/relearning.json", "run/attacks/sampling.json")

    def use(self) -> None:
        from wagle.report.attack_findings import strongest
        from wagle.report.files import read_attack
        from wagle.report.html.sections import attacks

        without_charts()
        found = read_attack(self.path)
        strongest(found)
        attacks.attack_part("attack", found, str)


class LedgerFile(_File):
    names = ("run/ledger.json",)

    def __init__(self, examples: Path, work: Path) -> None:
        super().__init__(examples, work)
        entry = json.loads(self.texts[self.names[0]])[0]
        receipt = {"schema": "wagle-purge/1", "when": "now", "wagle": "1", "deleted": []}
        receipt["deleted"] = [{"path": "base/", "files": 1, "bytes": 5, "digest": None}]
        later = {**entry, "name": "later", "after": "run", "base": entry["result"]}
        several = [entry, {**later, "earlier": {"mode": "evaluate", "n": 2}, "mask": None}, receipt]
        self.texts[self.names[0]] = json.dumps(several)

    def use(self) -> None:
        from wagle.run.ledger import ledger_json, ledger_table, read_ledger, read_receipts

        self.path = self.path.rename(self.work / "ledger.json")
        found = read_ledger(self.work, broken=True)
        ledger_table(found, read_receipts(self.work))
        json.dumps(ledger_json(found))
        read_ledger(self.work)


# ---------------------------------------------------------------------------------------------
# A run


class RunFiles(Kind):
    """A run folder with one file changed; in half of the cases all seals are made anew."""

    def __init__(self, examples: Path, work: Path) -> None:
        self.folder = work / "run"
        shutil.copytree(examples / "run", self.folder)
        self.texts = {
            path.relative_to(self.folder).as_posix(): path.read_text()
            for path in sorted(self.folder.rglob("*"))
            if path.suffix in (".json", ".jsonl", ".yaml") or path.name == "salt"
        }
        self.texts.pop("private/gradients/store.json", None)
        self.state = json.loads(self.texts["state.json"])
        self.changed: set[str] = set()

    def write(self, rng: Random) -> str:
        for name in self.changed:
            (self.folder / name).write_text(self.texts[name])
        self.draw = rng.random() < 0.25
        name = rng.choice(("state.json",) * 6 + tuple(self.texts))
        text, path = self.texts[name], self.folder / name
        self.changed = {name, "state.json"}
        state = json.loads(self.texts["state.json"])
        if rng.random() < 0.04:
            path.unlink()
            return f"{name} deleted"
        if name == "state.json":
            del state["seal"]
            state = mutate_value(rng, state)
            if rng.random() < 0.2:
                path.write_bytes(mutate_bytes(rng, text.encode()))
                return name
            self._write_state(state)
            return f"{name} sealed"
        mutate = mutate_lines if path.suffix == ".jsonl" else mutate_json
        mutate = _mutate_yaml if path.suffix == ".yaml" else mutate
        path.write_bytes(
            mutate_bytes(rng, text.encode()) if path.suffix == "" else mutate(rng, text)
        )
        if rng.random() < 0.25:
            return name
        self._seal(state, name)
        return f"{name} sealed"

    def _seal(self, state: Any, name: str) -> None:
        """Give a changed file the digest that it should have, and the state its own."""
        from wagle.system.errors import WagleError
        from wagle.system.seals import file_digest

        for made in state["seals"].values():
            if name in made["files"]:
                try:
                    made["files"][name] = file_digest(self.folder, name)
                except WagleError:  # a salt that is none
                    made["files"][name] = ""
        del state["seal"]
        self._write_state(state)

    def _write_state(self, state: Any) -> None:
        from wagle.system.seals import content_digest

        text = json_text(state)
        try:
            whole = json.loads(text)
            if isinstance(whole, dict):
                text = json_text({**whole, "seal": content_digest(whole)})
        except (ValueError, RecursionError):
            pass
        (self.folder / "state.json").write_bytes(text.encode("utf-8", "surrogatepass"))

    def use(self) -> None:
        from wagle.report.text.run import summary_table
        from wagle.report.verdict_json import exit_code, run_json
        from wagle.run.finding import find_run
        from wagle.run.integrity.roles import run_roles
        from wagle.run.integrity.seals import check_run, check_sealed_file, check_seals
        from wagle.run.ledger import ledger_table, read_ledger, read_receipts
        from wagle.run.opening import Run
        from wagle.run.stages.table import STAGES
        from wagle.system.secrets import salt

        check_run(self.folder)
        recipe, home = find_run(str(self.folder), [], None)
        run = Run(home, recipe)
        check_seals(run)
        run.logged()
        run.warnings()
        salt(run.private)
        if any(name not in run.state["stages"] for name in STAGES):
            return  # it would go on computing
        roles = run_roles(run, recipe)
        summary_table(home, True, roles)
        json.dumps(run_json(home, roles))
        exit_code(run.state["stages"]["after"].get("verdict"))
        ledger_table(read_ledger(home, broken=True), read_receipts(home))
        check_sealed_file(home / "evaluation" / "after.json")
        if self.draw:
            page_of(run)


# ---------------------------------------------------------------------------------------------
# A pack of evidence


class PackFiles(Kind):
    """A pack with one file changed, in most cases with a new manifest that is signed anew."""

    def __init__(self, examples: Path, work: Path) -> None:  # noqa: ARG002 - nothing is written
        from wagle.evidence.pack import MANIFEST, SIGNATURE, read_pack
        from wagle.evidence.signing import read_key

        self.files = read_pack(examples / "pack")
        self.names = sorted(set(self.files) - {MANIFEST, SIGNATURE})
        self.key = read_key(examples / "maker.pem")
        self.own = (MANIFEST, SIGNATURE)

    def write(self, rng: Random) -> str:
        from wagle.evidence.pack import manifest_of
        from wagle.evidence.signing import sign

        self.mutant = dict(self.files)
        sealed = rng.random() < 0.8
        name = rng.choice(self.names if sealed else [*self.names, *self.own])
        text = self.files[name].decode()
        if name.endswith(".json"):
            self.mutant[name] = mutate_json(rng, text)
        elif name.endswith(".yaml"):
            self.mutant[name] = _mutate_yaml(rng, text)
        else:
            self.mutant[name] = mutate_bytes(rng, text.encode())
        if not sealed:
            return name
        manifest = manifest_of(self.mutant)
        self.mutant["manifest.json"] = json.dumps(manifest).encode()
        self.mutant["signature.json"] = json.dumps(sign(manifest["root"], self.key)).encode()
        return f"{name} signed"

    def use(self) -> None:
        from wagle.evidence.checking import signed_by, told_in

        try:
            signed_by(self.mutant, None)
        finally:
            told_in(self.mutant)


# ---------------------------------------------------------------------------------------------
# Tensor files


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


TEXTS: dict[str, type[Kind]] = {
    "recipe": RecipeFile,
    "records-json": RecordsJson,
    "records-jsonl": RecordsLines,
    "records-csv": RecordsTable,
    "result": ResultFile,
    "attack": AttackFile,
    "ledger": LedgerFile,
    "run": RunFiles,
    "pack": PackFiles,
}
TENSORS: dict[str, type[Kind]] = {"mask": MaskFile, "patch": PatchFile, "store": StoreFiles}
KINDS = {**TEXTS, **TENSORS}
