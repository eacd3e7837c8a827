"""CONTRIBUTING.md, with the examples that ``bench.house`` adds to a copy of the repository.

python -m bench.house.guide
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from bench.house.additions import ADDITIONS, Addition, Edit

ROOT = Path(__file__).resolve().parents[2]

_BEFORE = """\
# Contributing

## Set up, test, lint

```console
$ make test     # installs what it needs into .venv, then runs every test on all cores (10 minutes on 2)
$ make lint     # ruff, mypy --strict, and the order of imports
$ make demo     # the full pipeline on a real 135M model (4 minutes)
```

No GPU, no network and no model hub are needed once the packages are installed. While you work, one
room's tests are enough: `.venv/bin/python -m pytest -q tests/mask`. `tests/` mirrors `src/wagle/`; a
test's name is a claim, and its expected value is worked out by hand or by a slow, independent version
in the test.

A change that only moves code must not change a result. `python -m bench.golden --out before.json`
records digests of what tiny runs of every kind produce; run it with `--against before.json` afterwards.

## Where things live

The rooms of `src/wagle` stand on ten floors, and imports go down only:

```
cli
comparison   evidence
run
attacks      report
evaluation
unlearning   attribution   patch
mask
recipe       metrics       model
data
system       compat
```

[docs/architecture.md](docs/architecture.md) says what each file holds. `make lint` refuses an import
that goes up, one between two rooms on a floor, and circles between files. If a lower room needs something
from an upper one, pass the function or the value in. A private name of another library goes into
`compat/`, with a row in its table of contracts, so that an upgrade that removes the name fails with a
clear message.

`python -m bench.house` counts the rooms, floors, long files and functions, and tries the examples below
on a copy of the repository.

## Conventions

- Names are the field's standard terms and the words used throughout the documentation.
- Numbers are functions of tensors, computed in float32; files, models and devices stay at the edges.
- Every random draw is a pure function of (seed, epoch, record id).
- An error that the user can fix is a `WagleError`: one line that says what is wrong, where, and what to
  do.
- Public docstrings give shapes, units, dtype, errors and the source (paper and equation).
- At most 350 lines a file, 50 lines a function (not counting its docstring), 12 files a folder.
- A commit message states the outcome, then why, and how it is known.

## Adding things

Pages of settings are generated from the code: run `make pages` afterwards, and `tests/test_docs.py`, which
compares them. Each example below is tried on a copy of the repository by `python -m bench.house`.
"""

_INTRODUCTIONS = {
    "objective": "An objective is a pure function from scored records to a loss per record, and an entry "
    "in the table at the end of its family's file. Positional parameters are its inputs, named as "
    "`unlearning/objectives/__init__.py` lists them (`forget_ref` is the same records under the original "
    "model); keyword parameters are its settings, numbers >= 0. A retain term on the NLL is added unless "
    "the entry says otherwise. Give `bounded=False` to a loss without a lower bound, and "
    '`check=positive("x")` to one that divides by a setting.',
    "score": "A score is a pure function from a weight and its measured quantities to a number per weight; "
    "the largest are selected first. It asks for its quantities by parameter name (the top of `scores.py` "
    "lists them); keyword parameters are its settings. Its line in the test stands in `BY_HAND`, with the "
    "value that the formula gives for the numbers above that table.",
    "metric": "A metric is a pure function of an answer, and an entry in the table at the end of its "
    "family's file that says what it needs: fields of `Answered` in `metrics/metric.py`, in the order of "
    "its arguments.",
    "benchmark": "A benchmark is a file with a function of the same name, which turns its data into "
    "requests and the answers into figures. Its keyword parameters are its settings, and its docstring "
    "describes them: the page of settings is made from it. `data` is the one setting that may be required, "
    "and `seed` must be there, with 0 as its default. Other requests (`Greedy`, `Sample`, `HiddenStates`, "
    "`GradientNorm`) are in `evaluation/asking/requests.py`. Raise `VERSION` when the definition changes.",
    "data format": "A format is a function from a path to rows, and an entry in READERS.",
    "attack": "An attack is a file with a function of the same name. It takes the scene and its settings "
    "and returns a trial: what to do to a model, and which figures to take. Its docstring describes the "
    "settings: the page of settings is made from it.",
    "stage": "A stage is a file with a function of the same name, and a row in the table: which stages it "
    "needs, and what it writes. If something can be checked before the run begins, add a function "
    "`check`. If it has settings, they are a section of the recipe: a file in `recipe/sections/`.",
    "report section": "A section of the report is a file with a function of the same name, which returns a "
    "`Section`, or None if it does not apply.",
}


def guide_page() -> str:
    """The whole page, as Markdown."""
    return _BEFORE + "".join(_section(addition) for addition in ADDITIONS) + "\n"


def _section(addition: Addition) -> str:
    article = "an" if addition.kind[0] in "aeiou" else "a"
    lines = [f"\n### {article} {addition.kind}\n".replace("### a", "### A", 1)]
    lines.append(f"\n{textwrap.fill(_INTRODUCTIONS[addition.kind], 104)}\n")
    last = ""
    for step in addition.steps:
        where = f"In `{step.path}`" if isinstance(step, Edit) else f"The new file `{step.path}`"
        where = "and its entry in the table of that file" if step.path == last else where
        code = textwrap.dedent(step.text).strip("\n")
        lines.append(f"\n{where}:\n\n```python\n{code}\n```\n")
        last = step.path
    return "".join(lines)
