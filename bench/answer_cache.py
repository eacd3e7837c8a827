"""Evaluation with answers cached in wagle's log and in SQLite, in turn: what does caching cost?

    python -m bench.answer_cache --data FOLDER --json bench/measured/answer-cache.json

Every round asks the same TOFU requests of the demo model and of a tiny one, where caching matters
most, once with a fresh cache of each kind, in varying order; then it reopens each cache and finds
every answer in it. ``sqlite_wal`` uses a write-ahead log, which network file systems do not allow;
``sqlite_rollback`` works wherever the log does, and waits for the disk at every flush. The bound is
on the seconds that asking takes without the cache plus those inside the cache: other work on the
machine affects their sum more than any cache does.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from wagle.data.tokens import Encoder
from wagle.evaluation.asking.cache import AnswerCache
from wagle.evaluation.asking.engine import answer_requests
from wagle.evaluation.asking.requests import Reply, Request
from wagle.evaluation.benchmarks.tofu import tofu
from wagle.model.loading import load_model, load_tokenizer, resolve_model

BOUND = 1.1  # the time with SQLite over that with the log, at most
STOPS = (2,)


class SqliteCache(AnswerCache):
    """The same answers in a SQLite file, one transaction per flush.

    With a write-ahead log it is as durable as wagle's: a killed process loses what was not flushed,
    and a power failure loses what the disk had not written.
    """

    mode, sync = "WAL", "NORMAL"

    def __init__(self, folder: Path, *rest: Any) -> None:
        super().__init__(folder, *rest)  # the log, which stays empty
        self.path = self.path.with_suffix(".sqlite")
        self._seen = 0
        self._db: sqlite3.Connection | None = None
        if self.path.exists():
            self._take()

    def _connected(self) -> sqlite3.Connection:
        if self._db is None:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._db.execute(f"PRAGMA journal_mode={self.mode}")
            self._db.execute(f"PRAGMA synchronous={self.sync}")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS answers"
                "(number INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB UNIQUE, content BLOB)"
            )
        return self._db

    def _take(self) -> None:
        rows = self._connected().execute(
            "SELECT number, key, content FROM answers WHERE number > ?", (self._seen,)
        )
        for self._seen, key, content in rows:
            self._known[key] = content

    def flush(self) -> None:
        """Write what was added since the last flush, and read what other processes wrote."""
        if not self._new:
            return
        db = self._connected()
        db.execute("BEGIN IMMEDIATE")
        self._take()
        db.executemany(
            "INSERT OR REPLACE INTO answers(key, content) VALUES (?, ?)", self._new.items()
        )
        self._seen = db.execute("SELECT max(number) FROM answers").fetchone()[0]
        db.execute("COMMIT")
        self._known.update(self._new)
        self._new = {}

    def close(self) -> None:
        """Release the file."""
        if self._db is not None:
            self._db.close()


class RollbackCache(SqliteCache):
    """The same with a rollback journal, SQLite's default."""

    mode, sync = "DELETE", "FULL"


KINDS: dict[str, Callable[..., AnswerCache]] = {
    "log": AnswerCache,
    "sqlite_wal": SqliteCache,
    "sqlite_rollback": RollbackCache,
}


class Timed:
    """A cache that counts the seconds inside it."""

    def __init__(self, cache: AnswerCache) -> None:
        self.cache, self.seconds = cache, 0.0

    def get(self, request: Request) -> Reply | None:
        """The answer, or None."""
        return self._timed(self.cache.get, request)

    def put(self, request: Request, reply: Reply) -> None:
        """Keep an answer."""
        self._timed(self.cache.put, request, reply)

    def flush(self) -> None:
        """Write what was added."""
        self._timed(self.cache.flush)

    def _timed(self, call: Callable[..., Any], *given: Any) -> Any:
        began = time.perf_counter()
        found = call(*given)
        self.seconds += time.perf_counter() - began
        return found


def once(kind: str, model: PreTrainedModel, requests: Sequence[Request]) -> dict[str, float]:
    """Ask with a fresh cache of a kind, then open it again and look everything up."""
    with tempfile.TemporaryDirectory() as folder:
        named = (Path(folder), "f" * 64, "torch.float32", "float32", STOPS)
        began, busy = time.perf_counter(), time.process_time()
        cache = Timed(KINDS[kind](*named))
        answer_requests(model, requests, stop_ids=STOPS, cache=cache)  # type: ignore[arg-type]
        whole, busy = time.perf_counter() - began, time.process_time() - busy
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        began = time.perf_counter()
        again = KINDS[kind](*named)
        assert all(again.get(request) is not None for request in requests)
        return {
            "seconds": whole,
            "cpu_seconds": busy,
            "in_cache": cache.seconds,
            "again": time.perf_counter() - began,
            "bytes": size,
        }


def tiny(vocabulary: int) -> PreTrainedModel:
    """A model of two narrow blocks, which answers so fast that caching matters."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=2048,
    )
    made: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    return made


def compare(data: str, rows: int, rounds: int) -> dict[str, Any]:
    """Rounds of both kinds in turn, on the demo model and a tiny one; ratios of medians."""
    folder = resolve_model("demo")
    encoder = Encoder(load_tokenizer(folder))
    found: dict[str, Any] = {
        "command": f"python -m bench.answer_cache --data FOLDER --rows {rows} --rounds {rounds}",
        "sqlite": sqlite3.sqlite_version,
    }
    models = {
        "demo": (load_model(folder), rows),
        "tiny": (tiny(len(load_tokenizer(folder))), 10 * rows),
    }
    for name, (model, some) in models.items():
        task = tofu(encoder, data=data, rows=some, max_new_tokens=16)
        requests = list(dict.fromkeys(task.requests))
        once("log", model, requests[:20])  # warm up
        runs: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for number in range(rounds):
            for kind in [*KINDS][:: -1 if number % 2 else 1]:
                runs[kind].append(once(kind, model, requests))
        middle = {
            kind: {key: median(run[key] for run in own) for key in own[0]}
            for kind, own in runs.items()
        }
        asking = median(run["cpu_seconds"] for own in runs.values() for run in own)
        inside = {kind: own["in_cache"] for kind, own in middle.items()}
        found[name] = {
            "requests": len(requests),
            "ratio": {k: (asking + inside[k]) / (asking + inside["log"]) for k in KINDS},
            "median": middle,
            "runs": runs,
        }
    return found


def main(options: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="A folder with TOFU's files.")
    parser.add_argument("--rows", type=int, default=2, help="Records of every set.")
    parser.add_argument("--rounds", type=int, default=3, help="How often to measure each.")
    parser.add_argument("--json", type=Path, help="Write the numbers to this file too.")
    asked = parser.parse_args(options)
    found = compare(asked.data, asked.rows, asked.rounds)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    for name in ("demo", "tiny"):
        print(f"{name}: {found[name]['requests']} requests")
        for kind, own in found[name]["median"].items():
            print(
                f"  {kind:<16}{found[name]['ratio'][kind]:>6.3f} (at most {BOUND})   in the cache "
                f"{own['in_cache']:.3g} s, reopening {own['again']:.2g} s, {own['bytes']:,} bytes"
            )


if __name__ == "__main__":
    main()
