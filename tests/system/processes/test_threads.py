import os
import subprocess
import sys
from pathlib import Path

# Without the thread that goes first, 20 to 90 of 100 such forks fail on two cores.
FORKS = """
import os, threading
import torch
from wagle.system.processes.threads import torch_threads

torch.set_num_threads(1)
numbers = torch.arange(4096)
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        together = threading.Barrier(8)

        def count(_):
            together.wait()
            return torch.bincount(numbers)

        with torch_threads(8) as pool:
            list(pool.map(count, range(8)))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
print("all alive")
"""


def test_threads_that_begin_together_after_a_fork_do_not_disturb_one_another():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        env={**os.environ, "PYTHONPATH": "src"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "all alive\n", done.stderr[-1000:]
