"""The kinds of files that are fuzzed: how a mutant of each is made, and what is done with it.

A mutant is opened and then used, as a command would use it, up to what would start to compute.
"""

from __future__ import annotations

from bench.fuzzing.folders import PackFiles, RunFiles
from bench.fuzzing.kind import Kind
from bench.fuzzing.tensors import MaskFile, PatchFile, StoreFiles
from bench.fuzzing.texts import (
    AttackFile,
    LedgerFile,
    RecipeFile,
    RecordsJson,
    RecordsLines,
    RecordsTable,
    ResultFile,
)

KINDS: dict[str, type[Kind]] = {
    "recipe": RecipeFile,
    "records-json": RecordsJson,
    "records-jsonl": RecordsLines,
    "records-csv": RecordsTable,
    "result": ResultFile,
    "attack": AttackFile,
    "ledger": LedgerFile,
    "run": RunFiles,
    "pack": PackFiles,
    "mask": MaskFile,
    "patch": PatchFile,
    "store": StoreFiles,
}
