import os
import subprocess
import sys

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wagle.system import memory
from wagle.system.memory import Spill, free_memory, total_memory

KINDS = [torch.float32, torch.bfloat16, torch.uint8]
STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 40), st.sampled_from(KINDS), st.booleans())
)


@given(STEPS, st.integers(0, 300))
def test_a_spill_is_a_dictionary_whatever_its_limit(steps, limit):
    spill, plain = Spill(limit), {}
    for number, (key, size, dtype, remove) in enumerate(steps):
        if remove:
            spill.pop(key, None)
            plain.pop(key, None)
        else:
            value = torch.full((size, 2), number % 100).to(dtype)
            spill[key], plain[key] = value, value
        assert spill._used == sum(t.nbytes for t in spill._memory.values()) <= limit
    assert len(spill) == len(plain)
    assert set(spill) == set(plain)
    for key, value in plain.items():
        assert spill[key].dtype == value.dtype
        assert torch.equal(spill[key], value)
        assert (key in spill) == (key in plain)


def test_nothing_is_left_on_the_disk_and_gradients_are_not_kept(tmp_path):
    spill = Spill(0, tmp_path)
    spill["x"] = torch.ones(1000, requires_grad=True) * 2
    assert os.listdir(tmp_path) == []
    assert not spill["x"].requires_grad
    assert spill["x"].sum() == 2000
    spill.close()


def test_memory_is_what_the_system_says_it_has_and_could_give(monkeypatch):
    assert total_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory() <= total_memory()
    little = psutil.virtual_memory()._replace(free=1, available=1 << 20)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: little)
    assert free_memory() == free_memory(torch.device("cpu")) == 1 << 20


def test_the_free_memory_of_a_gpu_is_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (device.index, 80))
    assert free_memory(torch.device("cuda:3")) == 3


HOLES = """
import sys
import numpy as np
import psutil
import pytest
from wagle.system.memory import free_at_once

if sys.argv[1] == "yes":
    free_at_once()
del (first := [np.ones(1 << 19)])[0]  # 4 MB: from here on, blocks of this size are of the heap
blocks, between = [], []
for _ in range(60):
    blocks.append(np.ones(1 << 19))
    between.append(np.ones(1 << 10))  # what stays between them keeps the heap from shrinking
full = psutil.Process().memory_info().rss
blocks.clear()
print(full - psutil.Process().memory_info().rss)
"""


@pytest.mark.parametrize(("asked", "all_of_it"), [("yes", True), ("no", False)])
def test_large_blocks_go_back_to_the_system_at_once_if_asked(asked, all_of_it):
    done = subprocess.run([sys.executable, "-c", HOLES, asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (int(done.stdout) > 200e6) == all_of_it  # of 252 MB


GB = 1 << 30


def group_of(home, **files):
    home.mkdir(parents=True)
    for name, text in files.items():
        (home / name.replace("__", ".")).write_text(text)


def test_what_a_container_allows_is_what_there_is(tmp_path, monkeypatch):
    """Control groups of version 2: the process's own, and the one around it."""
    proc, root = tmp_path / "cgroup", tmp_path / "root"
    proc.write_text("0::/outer/inner\n")
    stat = f"anon 5\nactive_file {GB}\ninactive_file {GB // 2}\n"
    group_of(
        root / "outer", memory__max=f"{8 * GB}\n", memory__current=f"{7 * GB}", memory__stat=""
    )
    group_of(
        root / "outer" / "inner",
        memory__max=f"{6 * GB}",
        memory__current=f"{4 * GB}",
        memory__stat=stat,
    )
    assert memory._allowed(proc, root) == [(6 * GB, 3 * GB + GB // 2), (8 * GB, GB)]
    (root / "outer" / "inner" / "memory.max").write_text("max\n")
    assert memory._allowed(proc, root) == [(8 * GB, GB)]
    monkeypatch.setattr(memory, "_allowed", lambda: [(1000, 10), (2000, 20)])
    assert (memory.total_memory(), memory.free_memory()) == (1000, 10)


def test_the_older_control_groups_count_too_and_no_limit_is_none(tmp_path):
    proc, root = tmp_path / "cgroup", tmp_path / "root"
    proc.write_text("4:memory:/job\n3:cpuset:/job\n0::/\n")
    stat = "cache 1\nactive_file 7\ntotal_active_file 100\ntotal_inactive_file 200\n"
    used = {"memory__usage_in_bytes": f"{GB}", "memory__stat": stat}
    group_of(root / "memory" / "job", memory__limit_in_bytes=f"{2 * GB}", **used)
    assert memory._allowed(proc, root) == [(2 * GB, GB + 300)]
    (root / "memory" / "job" / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert memory._allowed(proc, root) == []
    assert memory._allowed(tmp_path / "nothing", root) == []


def test_without_limits_it_is_the_machines(monkeypatch):
    monkeypatch.setattr(memory, "_allowed", lambda: [])
    assert memory.total_memory() == psutil.virtual_memory().total
    assert memory.free_memory() > 0
