"""Addresses of models on a Triton server, as a backend's name."""

from __future__ import annotations

import pytest

from kanoclip.runtime.engines import check_backend
from kanoclip.runtime.engines.triton.address import TritonAddress, is_triton
from kanoclip.runtime.errors import BackendError


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("triton://gpu/toy", TritonAddress("gpu", 8001, "toy")),
        ("triton://10.0.0.7:9001/nano/3", TritonAddress("10.0.0.7", 9001, "nano", "3")),
        ("tritons://[::1]:9001/n-1.x?timeout=2.5&wait=600", TritonAddress("::1", 9001, "n-1.x", "", True, 2.5, 600.0)),
    ],
)
def test_addresses(text, parsed):
    assert TritonAddress.parse(text) == parsed and check_backend(text) == text
    assert TritonAddress.parse(str(parsed)).target == parsed.target


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("triton://", "is no address"),
        ("triton://gpu", "is no address"),
        ("triton://gpu/", "is no address"),
        ("triton://:8001/toy", "is no address"),
        ("triton://gpu:x/toy", "is no address"),
        ("triton://gpu:99999/toy", "is no address"),
        ("triton://gpu/a/b", "is no address"),
        ("triton://gpu/../etc", "is no address"),
        ("triton://gpu/toy#x", "is no address"),
        ("triton://me:word@gpu/toy", "takes no user or password"),
        ("triton://gpu/toy?patience=3", "unknown option 'patience': there are timeout, wait"),
        ("triton://gpu/toy?wait=-1", "no number of seconds"),
        ("triton://gpu/toy?timeout=0", "no number of seconds"),
        ("triton://gpu/toy?timeout=nan", "no number of seconds"),
        ("http://gpu/toy", "unknown backend 'http://gpu/toy': choose one of auto, .*, triton://HOST"),
        ("tritonn", "unknown backend"),
    ],
)
def test_what_is_no_address(text, said):
    with pytest.raises(BackendError, match=said) as caught:
        check_backend(text)
    assert "word" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    ("text", "meant"),
    [("triton://", True), ("tritons://x", True), ("triton", False), ("triton:/gpu", False), ("", False)],
)
def test_what_is_meant_as_an_address(text, meant):
    """Also where it is none: the message then tells how one is written."""
    assert is_triton(text) is meant
