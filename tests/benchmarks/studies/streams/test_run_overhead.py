from __future__ import annotations

import json
import subprocess
import sys

import pytest

from kanoclip.runtime.bundle.bundle import find_bundle


@pytest.mark.nightly
def test_it_measures_the_shipped_bundle_and_writes_its_figures(tmp_path):
    command = [sys.executable, "-m", "kanoclip.benchmarks.studies.streams.run_overhead"]
    command += [str(find_bundle(None, tmp_path)), "--frames", "12", "--output", str(tmp_path / "result.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["frames"] == 12 and result["environment"]["cores"] >= 1
    assert {"capture", "resize", "inference", "decide", "jsonl"} <= set(result["stages"])
    outside = sum(stage["cpu"] for name, stage in result["stages"].items() if name != "inference")
    assert abs(outside - result["outside_inference_cpu_ms"]) < 1e-6
    assert result["stages"]["capture"]["cpu"] > 0.5  # a 1080p JPEG was decoded for every frame
    assert result["memory_mb"]["peak"] > 20
