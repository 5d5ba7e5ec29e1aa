"""The examples in the docstrings of the public classes."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "kanoclip.runtime.detect.detector",
    "kanoclip.runtime.sinks.base",
    "kanoclip.runtime.sinks.images",
    "kanoclip.runtime.sinks.jsonl",
    "kanoclip.runtime.sources.files.images",
    "kanoclip.runtime.sources.opening",
    "kanoclip.runtime.sources.pattern",
    "kanoclip.runtime.stream.stream",
    "kanoclip.runtime.types",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted and not done.failed
