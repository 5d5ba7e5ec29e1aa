from __future__ import annotations

import os

import pytest

from kanoclip.runtime.system.files.regular import read_regular


def test_content_up_to_a_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert read_regular(path, 3) == b"abc"
    assert read_regular(path, 2) is None


def test_what_never_ends_or_never_begins_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a").symlink_to("a")
    before = len(os.listdir("/proc/self/fd"))
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "a", tmp_path / "none", tmp_path / "a\0b"):
        with pytest.raises(OSError):
            read_regular(path, 9)
    for name in ("/dev/zero", "/dev/null"):
        with pytest.raises(OSError, match="no regular file"):
            read_regular(type(tmp_path)(name), 9)
    assert len(os.listdir("/proc/self/fd")) == before
