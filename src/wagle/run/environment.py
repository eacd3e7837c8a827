"""The versions and the machine that a run was made with."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Versions and machine, as the run folder records them."""
    import safetensors
    import torch
    import transformers

    from wagle.system.memory import total_memory

    return {
        "wagle": version("wagle"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "safetensors": safetensors.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": total_memory(),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "argv": sys.argv[1:],
    }
