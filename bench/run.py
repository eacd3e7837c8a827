"""The quick benchmark: attribution and unlearning steps on the demo model.

    make bench            # prints one table; --json FILE writes it too

Each row states its bound. No test depends on these times: machines differ, ratios less so. The
remaining rows (``make bench-large``) need models of 1.1 and 6.7 billion weights.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.attribution import arguments, run
from wagle.system.errors import WagleError

QUICK = (
    "bare",
    "whole",
    "published",
    "stream",
    "stream_equal",
    "selection",
    "rescore",
    "mask_bytes",
    "step",
    "held",
    "patches",
)


def main(options: Sequence[str] | None = None) -> None:
    """Measure and print."""
    try:
        run(arguments(__doc__).parse_args(options), QUICK)
    except WagleError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
