from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from kanoclip.benchmarks.process_samples import sample_process

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")


def test_what_this_process_takes_is_seen(tmp_path):
    before = sample_process(os.getpid())
    release = threading.Event()
    threads = [threading.Thread(target=release.wait) for _ in range(3)]
    files = [(tmp_path / str(number)).open("w") for number in range(4)]
    for thread in threads:
        thread.start()
    block = bytearray(os.urandom(1 << 20) * 40)
    sum(range(3_000_000))
    after = sample_process(os.getpid())
    release.set()
    for thread in threads:
        thread.join()
    for file in files:
        file.close()
    assert after.threads - before.threads == 3 and after.files - before.files == 4
    for name in ("rss_mb", "pss_mb", "anonymous_mb"):
        assert len(block) / 1e6 - 1 < getattr(after, name) - getattr(before, name) < len(block) / 1e6 + 8
    assert 0 < after.cpu_s - before.cpu_s < 30
    assert after.anonymous_mb <= after.rss_mb and after.pss_mb <= after.rss_mb


def test_a_process_that_has_gone_is_an_error():
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(OSError):
        sample_process(process.pid)
