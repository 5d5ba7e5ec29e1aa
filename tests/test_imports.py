"""Which part may import what: the runtime stays lean, and nothing imports what stands above it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HEAVY = {"torch", "torchvision", "onnx", "onnxscript", "open_clip"}
PARTS = {f"kanoclip.{name}" for name in ("train", "export", "runtime", "benchmarks", "examples")}


def imported(tree, package):
    """Full names of all that a module imports, anywhere in it, functions and type-checking blocks included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            name = base if node.level else str(node.module)
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def offences(folder, forbidden):
    """`file imports name` for each forbidden import under a folder of the project."""
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    found = []
    for path in files:
        package = ".".join(("kanoclip", *path.relative_to(ROOT).parent.parts))
        for name in imported(ast.parse(path.read_text(encoding="utf-8")), package):
            if any(name == one or name.startswith(one + ".") for one in forbidden):
                found.append(f"{path.relative_to(ROOT)} imports {name}")
    return found


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("runtime", HEAVY | PARTS - {"kanoclip.runtime"}),
        ("train", {"kanoclip.export", "kanoclip.benchmarks", "onnx", "onnxscript", "onnxruntime"}),
        ("export", {"kanoclip.benchmarks"}),
    ],
)
def test_layers(folder, forbidden):
    assert offences(folder, forbidden) == []


@pytest.mark.parametrize(
    "line",
    [
        "import torch",
        "import torch.nn as nn",
        "from torch import nn",
        "from kanoclip import train",
        "from kanoclip.train import checkpoint",
        "from ..train import checkpoint",
        "from .. import train",
        "def late():\n    import torch",
        "if TYPE_CHECKING:\n    import torch",
        "importlib.import_module('torch')",
        "__import__('torch.nn')",
    ],
)
def test_the_rule_sees_every_way_to_import(line):
    names = set(imported(ast.parse(line), "kanoclip.runtime"))
    assert any(n.split(".")[0] == "torch" or n.startswith("kanoclip.train") for n in names), names


@pytest.mark.parametrize("line", ["from .train import x", "from .backends import base", "import torchless"])
def test_the_rule_sees_no_more_than_that(line):
    names = set(imported(ast.parse(line), "kanoclip.runtime"))
    assert not any(n.split(".")[0] == "torch" or n.startswith("kanoclip.train") for n in names), names


def modules_after(code):
    """Top-level names of what is loaded after some code, and the seconds that it took, in a fresh interpreter."""
    script = (
        "import json, sys, time; before = time.perf_counter()\n"
        f"{code}\n"
        "spent = time.perf_counter() - before\n"
        "print(json.dumps([sorted({name.partition('.')[0] for name in sys.modules}), spent]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    names, spent = json.loads(done.stderr.splitlines()[-1])
    return set(names), spent


def test_the_runtime_is_lean_and_quick_to_import():
    runs = [modules_after("import kanoclip.runtime") for _ in range(3)]
    for names, _ in runs:
        assert {"kanoclip", "numpy", "cv2"} <= names
        assert not (HEAVY | {"onnxruntime", "openvino", "tensorrt", "click", "rich"}) & names
    assert min(spent for _, spent in runs) < 0.5


@pytest.mark.parametrize(
    ("options", "engine", "other"),
    [("device='cpu'", "onnxruntime", "openvino"), ("backend='openvino'", "openvino", "onnxruntime")],
)
def test_a_detector_needs_no_more_than_the_engine(toy_bundle, options, engine, other):
    code = (
        "import numpy as np; from kanoclip.runtime import Detector\n"
        f"Detector.load({str(toy_bundle)!r}, {options})(np.zeros((9, 9, 3), np.uint8))"
    )
    names, _ = modules_after(code)
    assert engine in names
    assert not (HEAVY | {other}) & names


@pytest.mark.parametrize("command", [["kanoclip", "--help"], ["kanoclip-run", "--help"], ["kanoclip", "run", "--help"]])
def test_help_needs_nothing_heavy(command):
    """As a user starts it: any attempt to load a heavy module would fail, since it is blocked."""
    script = (
        f"import sys, runpy; sys.argv = {command!r}\n"
        f"for name in {sorted(HEAVY | {'onnxruntime', 'openvino'})!r}: sys.modules[name] = None\n"
        f"runpy.run_path({str(BIN / command[0])!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: " + command[0] in done.stdout
    assert done.stderr == ""
