"""The words of a pack: the claim, what is not claimed, its limits, and the script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_CLAIMED = (
    "that nothing is left of the records: the probes found no leak, other questions may",
    "that the forget set is all that the model should forget, or that its records are true",
    "that copies of the records or of the model before, or other models, were deleted",
    "that the reference never learned the records: its maker says so, its figures are only "
    "consistent with it",
    "that the commitment was made before unlearning, unless you received it before: its time is "
    "stated by its maker",
    "that the law, a contract or a regulator is satisfied",
)

LIMITS = """\
# Limits

What this pack shows, if `wagle audit` confirms it:

- The files are those that the holder of the key signed. Who holds the key is not shown: pin a public
  key that you received in another way (`--public-key`).
- The weights that you audited are those that the figures are about (fingerprints), and the tokenizer and
  configuration are the same files.
- The records that you were given are the forget set of the commitment (keyed Merkle root).
- On records that your nonce drew, the figures come out the same when you compute them; the model before
  fails these probes, and the audited model does not.

What it does not show:

{not_claimed}

- Probabilities that you compute may differ from the pack's by {tolerance:g} per record, and the number of
  predicted tokens in {odd:.0%} of the records (at least one): sums of float32 are rounded differently on
  other machines. A maker could hide changes of that size.
- The attacks in the pack are figures of its maker. An audit asks only the records' own questions, their
  paraphrases and your questions; run attacks of your own for more.
- The nonce decides only which records are asked about. If the protocol asks about all of them, nothing is
  left to draw.
- The mask and the patch point at the weights that changed. That is where the records were.
"""

SCRIPT = """\
#!/bin/sh
# Repeats the run of this pack: sh reproduce.sh DATA [OUT]
#
# DATA is a folder that holds, under the names in recipe.yaml, the records and models that the recipe
# names: the pack holds no records, and paths are reduced to names. The run takes wagle {wagle}, torch
# {torch} and transformers {transformers}; environment.json has the machine. On another machine float32
# sums are rounded differently, so the weights are equal only on a machine of the same kind with the same
# number of threads; the figures agree within the tolerance of the protocol.
set -eu
recipe=$(cd "$(dirname "$0")" && pwd)/recipe.yaml
out=$(pwd)/reproduced
[ $# -ge 1 ] || {{ echo "usage: sh reproduce.sh DATA [OUT]" >&2; exit 2; }}
[ $# -lt 2 ] || out=$2
cd "$1"
OMP_NUM_THREADS={threads} wagle run "$recipe" --out "$out" || [ $? -ne 2 ]
wagle ledger "$out"
echo "expected: base {base}, result {result}"
"""


def claim_page(claim: Mapping[str, Any]) -> str:
    """``CLAIM.md``: the claim in words."""
    models, commitment = claim["models"], claim["commitment"]
    lines = [
        f"# {claim['name']}: {claim['verdict']}",
        "",
        f"The maker of this pack claims that the model `{models['result']}` was made from "
        f"`{models['base']}` to forget {claim['forget']['n']} records, and that asking it about them "
        f"gave this verdict: **{claim['verdict']}**.",
        "",
        *(f"- {reason}" for reason in claim["reasons"]),
        "",
        f"- forget set: {claim['forget']['n']} records, root `{claim['forget']['root']}`",
        f"- commitment: `{commitment['digest']}`, made {commitment['made']}, {commitment['when']}",
        f"- pack made {claim['made']} with wagle {claim['wagle']}",
        "",
        "## Not claimed",
        "",
        *(f"- {line}" for line in claim["not_claimed"]),
        "",
        "Check it: `wagle audit PACK --model DIR --forget F --secret S --base DIR --nonce N`",
    ]
    return "\n".join(lines) + "\n"


def limits_page(tolerance: float, odd: float) -> str:
    """``LIMITS.md``."""
    lines = "\n".join(f"- {line[0].upper()}{line[1:]}." for line in NOT_CLAIMED)
    return LIMITS.format(not_claimed=lines, tolerance=tolerance, odd=odd)


def script(environment: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    """``reproduce.sh``."""
    told = {key: environment.get(key, "?") for key in ("wagle", "torch", "transformers")}
    threads = int(environment.get("threads") or 1)
    return SCRIPT.format(**told, threads=threads, base=models["base"], result=models["result"])
