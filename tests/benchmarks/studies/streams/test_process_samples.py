from __future__ import annotations

import subprocess
import sys

import pytest

from kanoclip.benchmarks.studies.streams.process_samples import sample_process

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")


# A process of its own: what other tests have left in this one comes and goes.
TAKES = """
import os, sys, threading
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
files = [open(os.devnull) for _ in range(4)]
block = os.urandom(1 << 20) * 40
sum(range(3_000_000))
print(len(block), flush=True)
sys.stdin.readline()
"""


def test_what_a_process_takes_is_seen():
    with subprocess.Popen(
        [sys.executable, "-c", TAKES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdout.readline() == "ready\n"
        before = sample_process(process.pid)
        process.stdin.write("go\n")
        taken_mb = int(process.stdout.readline()) / 1e6
        after = sample_process(process.pid)
        process.stdin.write("end\n")
    assert after.threads - before.threads == 3 and after.files - before.files == 4
    for name in ("rss_mb", "pss_mb", "anonymous_mb"):
        assert taken_mb - 1 < getattr(after, name) - getattr(before, name) < taken_mb + 8
    assert 0 < after.cpu_s - before.cpu_s < 30
    assert after.anonymous_mb <= after.rss_mb and after.pss_mb <= after.rss_mb


def test_a_process_that_has_gone_is_an_error():
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(OSError):
        sample_process(process.pid)
