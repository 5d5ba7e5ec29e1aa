from __future__ import annotations

import subprocess
import sys

from kanoclip.runtime.cli.terminal import version
from kanoclip.runtime.cli.terminal.version import ENGINES, version_lines


def test_engines_are_named_by_what_is_installed(monkeypatch):
    there = {"kanoclip-edge": "1.2.3", "openvino": "2026.1"}
    monkeypatch.setattr(version, "installed_versions", lambda names: {n: there[n] for n in names if n in there})
    assert version_lines("kanoclip-edge") == ("kanoclip, version 1.2.3", "engines: openvino 2026.1")
    there.clear()
    assert version_lines("kanoclip-edge")[0].endswith("a source tree that is not installed")
    assert "pip install" in version_lines("kanoclip-edge")[1]


def test_no_engine_is_imported_for_it():
    heavy = ["onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "tritonclient", "cv2"]
    script = (
        "import sys\nfrom kanoclip.runtime.cli.main import invoke\n"
        f"code = invoke('kanoclip', None, ['--version'])\nprint(code, sorted(set({heavy!r}) & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    first, engines, last = done.stdout.splitlines()
    assert first.startswith("kanoclip, version ") and engines.startswith("engines: ")
    assert any(f"{name} " in engines for name in ENGINES)
    assert last == "0 []"
