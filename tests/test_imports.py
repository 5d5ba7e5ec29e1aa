"""Which part may import what: the runtime stays lean, and nothing imports what stands above it.

And how the parts lie in folders: few enough on each level to be read at a glance.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HEAVY = {"torch", "torchvision", "onnx", "onnxscript", "open_clip"}
SOURCES = ("runtime", "export", "train", "benchmarks")
ROOMS = (
    {"errors", "types"},
    {"system"},
    {"bundle"},
    {"engines"},
    {"detect"},
    {"sources", "sinks"},
    {"stream"},
    {"service", "ops"},
    {"cli"},
)
"""The runtime's, from the bottom to the top: a room imports only what stands before it, and none of its neighbours."""
LEAF = "metrics"
"""Used by any room, and uses the shared vocabulary alone."""
MOST_AT_THE_ROOT = 15
MOST = 12
CROWDED = {
    # One line from a checkpoint to a bundle: each module is a step or what two steps share, and none of the groups that
    # could be made of them (graph, quantization, engines) is imported as one. Rooms would add files and no clarity.
    "export": 21,
}
"""Levels that may have more entries than MOST, each for the reason beside it."""
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


@cache
def modules():
    """Name of each module -> all that it imports, in full names."""
    found = {}
    for path in sorted(path for part in SOURCES for path in (ROOT / part).rglob("*.py")):
        parts = ("kanoclip", *path.relative_to(ROOT).with_suffix("").parts)
        package = parts[:-1]
        name = ".".join(package if path.name == "__init__.py" else parts)
        found[name] = set(imported(ast.parse(path.read_text(encoding="utf-8")), ".".join(package)))
    return found


def modules_under(prefix):
    """Those of `modules` in a part of the project."""
    found = {name: names for name, names in modules().items() if f"{name}.".startswith(f"{prefix}.")}
    assert found
    return found


def offences(folder, forbidden):
    """`module imports name` for each forbidden import under a folder of the project."""
    return [
        f"{module} imports {name}"
        for module, names in modules_under(f"kanoclip.{folder}").items()
        for name in sorted(names)
        if any(name == one or name.startswith(one + ".") for one in forbidden)
    ]


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


def room(name):
    """The room of a module of the runtime, such as `engines`; empty for the package itself."""
    return name.removeprefix("kanoclip.runtime").lstrip(".").partition(".")[0]


def test_every_room_has_its_place():
    drawn = {LEAF, *itertools.chain(*ROOMS)}
    assert {room(name) for name in modules_under("kanoclip.runtime")} - {""} == drawn


def reached(name, names):
    """The modules among what a module imports: `from package import module` means the module, not the package too."""
    known = names & modules().keys()
    packages = {one for one in known if any(other.startswith(f"{one}.") for other in known)}
    return {one for one in known - {name} if one not in packages or _itself(one, names)}


def _itself(package, names):
    """Whether something that is no module is imported from a package."""
    inside = {one for one in names if one.startswith(f"{package}.") and "." not in one[len(package) + 1 :]}
    return not inside or bool(inside - modules().keys())


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("from kanoclip.runtime.engines import openvino", "engines.openvino"),
        ("from kanoclip.runtime.engines import create_backend", "engines"),
        ("import kanoclip.runtime.engines", "engines"),
        ("from kanoclip.runtime.engines.base import Backend", "engines.base"),
        ("def late():\n    from ..engines import base", "engines.base"),
    ],
)
def test_a_package_is_no_module_of_its_own(line, module):
    names = set(imported(ast.parse(line), "kanoclip.runtime.detect"))
    assert reached("kanoclip.runtime.detect.detector", names) == {f"kanoclip.runtime.{module}"}


def test_arrows_between_rooms():
    level = {name: number for number, names in enumerate(ROOMS) for name in names}
    level[LEAF] = 0
    wrong = []
    for name, names in modules_under("kanoclip.runtime").items():
        for other in sorted(reached(name, names)):
            here, there = room(name), room(other)
            # The package gives out the runtime's public names: none of its own modules may take them from there.
            allowed = here == "" or here == there or there == LEAF
            if not allowed and (there == "" or level[there] >= max(level[here], 1)):
                wrong.append(f"{name} imports {other}")
    assert wrong == []


def test_no_cycle_between_modules():
    """Not even one that an import inside a function keeps from failing."""
    left = {name: reached(name, names) for name, names in modules().items()}
    while leaves := {name for name, names in left.items() if not names & left.keys()}:
        left = {name: names for name, names in left.items() if name not in leaves}
    # What is left is a cycle, or imports one.
    assert {name: sorted(names & left.keys()) for name, names in left.items()} == {}


def test_levels():
    """Entries of each folder, as git has them, but the marker py.typed; a bundle's files are no one's to arrange."""
    listed = subprocess.run(
        ["git", "ls-files", "runtime", "train", "export", "benchmarks"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("no checkout of git")
    entries = defaultdict(set)
    for path in map(Path, listed.stdout.split()):
        if path.name != "py.typed" and not any(part.endswith(".kanoclip") for part in path.parts[:-1]):
            for folder in [*path.parents][:-1]:
                entries[str(folder)].add(path.parts[len(folder.parts)])
    allowed = defaultdict(lambda: MOST, CROWDED | {"runtime": MOST_AT_THE_ROOT})
    assert {folder: len(names) for folder, names in entries.items() if len(names) > allowed[folder]} == {}
    assert {folder for folder in CROWDED if len(entries[folder]) <= MOST} == set(), "these need no exception any more"


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


def test_the_runtime_is_lean_to_import():
    names, _ = modules_after("import kanoclip.runtime")
    assert "kanoclip" in names and not {"numpy", "cv2"} & names
    names, _ = modules_after("from kanoclip.runtime import *")
    assert {"kanoclip", "numpy", "cv2"} <= names
    assert not (HEAVY | {"onnxruntime", "openvino", "tensorrt", "click", "rich"}) & names


@pytest.mark.nightly
def test_the_runtime_is_quick_to_import():
    assert min(modules_after("from kanoclip.runtime import Detector")[1] for _ in range(3)) < 0.5


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
