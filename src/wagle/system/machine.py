"""What is installed and what the machine has, without importing anything heavy."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from wagle.system.memory import free_memory, total_memory

_CORE = ("torch", "transformers", "accelerate", "datasets", "safetensors", "numpy", "pydantic")
_ASK = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,driver_version"]
_PATIENCE = 5  # seconds for the driver to answer


def describe() -> dict[str, Any]:
    """Versions, devices, extras, disk and memory, for ``wagle doctor``.

    Returns:
        ``versions`` by package (None: missing); ``cuda``, the CUDA version that torch was built
        for, or None; ``devices``, one dict each; ``extras``, by name the packages that are missing;
        ``memory`` and ``disk`` in bytes; ``problems``, lines that say what to do.
    """
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    found: dict[str, Any] = {
        "versions": {
            "wagle": installed("wagle"),
            "python": platform.python_version(),
            **{name: installed(name) for name in _CORE},
        },
        "cuda": torch_cuda(),
        "devices": [{"name": "cpu", "processors": os.cpu_count()}, *graphics_cards()],
        "extras": missing_by_extra(metadata.requires("wagle") or []),
        "memory": {"total": total_memory(), "free": free_memory()},
        "disk": {"here": _free_disk(Path.cwd()), "hub_cache": _free_disk(cache)},
    }
    return {**found, "problems": problems(found)}


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def torch_cuda() -> str | None:
    """The CUDA version that torch was built for, read from its files; None: for none."""
    found = importlib.util.find_spec("torch")
    for place in (found.submodule_search_locations or []) if found else []:
        try:
            text = (Path(place) / "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        match = re.search(r"^cuda\b[^=]*= *'([\d.]+)'", text, re.M)
        return match[1] if match else None
    return None


def graphics_cards() -> list[dict[str, Any]]:
    """The graphics cards that NVIDIA's driver lists."""
    if shutil.which(_ASK[0]) is None:
        return []
    try:
        done = subprocess.run(
            [*_ASK, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_cards(done.stdout)


def parse_cards(text: str) -> list[dict[str, Any]]:
    """Cards from the driver's lines ``name, MiB in all, MiB free, driver``."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 4 and cells[1].isdigit() and cells[2].isdigit():
            memory = {"total": int(cells[1]) << 20, "free": int(cells[2]) << 20}
            found.append({"name": cells[0], "memory": memory, "driver": cells[3]})
    return found


def missing_by_extra(required: list[str]) -> dict[str, list[str]]:
    """For every extra, the packages that it asks for and that are not installed.

    Args:
        required: requirements as a package's metadata has them: ``peft>=0.18; extra == 'lora'``.
    """
    found: dict[str, list[str]] = {}
    for line in required:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"""extra *== *['"]([\w.-]+)['"]""", line)
        if name is None or extra is None or extra[1] == "dev":
            continue
        missing = found.setdefault(extra[1], [])
        if installed(name[0]) is None:
            missing.append(name[0])
    return found


def problems(found: dict[str, Any]) -> list[str]:
    """What keeps wagle from running, or from using a card: what, and what to do."""
    lines = [
        f"{name} is not installed: pip install wagle"
        for name, version in found["versions"].items()
        if version is None
    ]
    if len(found["devices"]) > 1 and found["cuda"] is None:
        lines.append(
            "there is a graphics card, but torch was built without CUDA: install another build of "
            "torch (https://pytorch.org/get-started)"
        )
    if (found["disk"]["here"] or 0) < 1 << 30:
        lines.append("less than 1 GB is free here: a run writes models of the size of its own")
    return lines


def _free_disk(path: Path) -> int | None:
    """Free bytes where a path is or would be."""
    for place in (path, *path.parents):
        if place.exists():
            return shutil.disk_usage(place).free
    return None
