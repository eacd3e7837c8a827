"""How the command line begins: the environment, and what is said on stderr."""

from __future__ import annotations

import logging
import os
import sys

from wagle.compat.torch import PYTREE_LOGGER
from wagle.system.progress import heed_signals


def set_up() -> None:
    """Set up the process's output and environment; importing wagle itself sets nothing."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: its threads spin otherwise
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' progress bars; wagle has its own
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # some warn on import, such as torch about what torchao does to it
    for name in ("bitsandbytes", "torchao", PYTREE_LOGGER):
        logging.getLogger(name).setLevel(logging.ERROR)
    heed_signals()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    root = logging.getLogger("wagle")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.propagate = False


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        prefix = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return prefix + record.getMessage()
