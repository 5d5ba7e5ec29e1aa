from __future__ import annotations

import subprocess
import sys

import pytest
from glibc_arenas import PRINTED, further_heaps

PROGRAM = """
import resource, sys, threading
import numpy as np
from kanoclip.runtime.system.memory import keep_frame_buffers
if sys.argv[1] == "kept":
    assert keep_frame_buffers()
faults = []
def frames():
    for index in range(60):
        if index == 20:
            faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        first, second = np.empty(6_220_800, np.uint8), np.empty(6_220_800, np.uint8)
        first[:] = second[:] = 1
        del first, second
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
thread = threading.Thread(target=frames)
thread.start()
thread.join()
print(faults[1] - faults[0])
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_frame_buffers_are_not_mapped_anew_for_every_frame():
    """Two 1080p buffers are 3,000 pages a frame: kept, they are touched once; a few strays may come from elsewhere."""
    assert faults("kept") < 40 * 100


SPARE = """
import numpy as np
from pathlib import Path
from kanoclip.runtime.system.memory import give_back_spare_memory, keep_frame_buffers
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])
keep_frame_buffers()
pieces = [np.ones(1_000_000, np.uint8) for _ in range(50)]
top = np.ones(1_000_000, np.uint8)  # above them on the heap: what lies below does not go back by itself
del pieces
before = resident()
give_back_spare_memory()
print(before - resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_spare_memory_goes_back():
    done = subprocess.run([sys.executable, "-c", SPARE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 8_000, "50 MB are 12,207 pages of 4 KiB"


HEAPS = f"""
import sys, threading
from kanoclip.runtime.system.memory import share_arena
if sys.argv[1] == "shared":
    assert share_arena()
together = threading.Barrier(8)
def take():
    together.wait()
    kept = [bytearray(50_000) for _ in range(20)]
    together.wait()
threads = [threading.Thread(target=take) for _ in range(7)]
for thread in threads:
    thread.start()
together.wait()
{PRINTED}
together.wait()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_threads_share_one_heap():
    def further(mode: str) -> int:
        done = subprocess.run([sys.executable, "-c", HEAPS, mode], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return further_heaps(done.stdout)

    assert further("shared") <= 2 and further("alone") >= 6
