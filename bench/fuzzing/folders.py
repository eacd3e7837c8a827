"""Folders of text files: a run with its seals, a pack of evidence with its signature."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

from bench.fuzzing.kind import Kind
from bench.fuzzing.mutations import (
    json_text,
    mutate_bytes,
    mutate_json,
    mutate_lines,
    mutate_value,
    mutate_yaml,
)
from bench.fuzzing.pages import page_of


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
        self.recipe: Any = None

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
        mutate = mutate_yaml if path.suffix == ".yaml" else mutate
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
        from wagle.system.files.seals import file_digest

        for made in state["seals"].values():
            if name in made["files"]:
                try:
                    made["files"][name] = file_digest(self.folder, name)
                except WagleError:  # a salt that is none
                    made["files"][name] = ""
        del state["seal"]
        self._write_state(state)

    def _write_state(self, state: Any) -> None:
        from wagle.system.files.seals import content_digest

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
        from wagle.system.files.secrets import salt

        check_run(self.folder)
        recipe, home = self.recipe, self.folder
        if recipe is None or "recipe.yaml" in self.changed:  # reading it is the slowest step
            recipe, _ = find_run(str(home), [], None)
        if "recipe.yaml" not in self.changed:
            self.recipe = recipe
        run = Run(home, recipe)
        check_seals(run)
        run.logged()
        run.warnings()
        salt(run.private)
        if any(name not in run.state["stages"] for name in STAGES):
            return  # it would go on computing
        roles = run_roles(run, recipe)
        summary_table(home, self.draw, roles)  # a table of everything takes its time
        json.dumps(run_json(home, roles))
        exit_code(run.state["stages"]["after"].get("verdict"))
        ledger_table(read_ledger(home, broken=True), read_receipts(home))
        check_sealed_file(home / "evaluation" / "after.json")
        if self.draw:
            page_of(run)


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
            self.mutant[name] = mutate_yaml(rng, text)
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
