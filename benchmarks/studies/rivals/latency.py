"""One image's time, start and memory: ours against anomalib's OpenVINO inferencer, in turns on one machine.

    python -m kanoclip.benchmarks.studies.rivals.latency --output rivals-latency.json

All see one uint8 image of 256 x 256 pixels and give map and score; all run in OpenVINO on the CPU with its default
threads: in float32, and in what OpenVINO takes by itself, which is bfloat16 where the processor has it. Ours has a
reference memory of 1,024 rows, once beside the zero-shot map and once alone, as PatchCore's.

A turn is ten images of one model, as a camera's stream has them. With `--images 1` another model has run before each:
the weights of all have to come into the processor's cache again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import click
import cv2
import numpy as np

from kanoclip.benchmarks.studies.results import write_result
from kanoclip.benchmarks.studies.rivals.accuracy import ALONE, OURS
from kanoclip.benchmarks.studies.turns import in_turns
from kanoclip.runtime.types import Image

SIDE = 256
FLOAT32, DEFAULT = "float32", "default"
_PEAK = """
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
_OURS = (
    """
import sys, numpy as np
from kanoclip.runtime import Detector
with Detector.load(sys.argv[1], backend="openvino") as detector:
    detector(np.full((256, 256, 3), 90, np.uint8))
"""
    + _PEAK
)
_THEIRS = (
    """
import sys, numpy as np
from anomalib.deploy import OpenVINOInferencer
OpenVINOInferencer(sys.argv[1], device="CPU").predict(np.full((256, 256, 3), 90, np.uint8))
"""
    + _PEAK
)


def exported(folder: Path, images: list[Image]) -> dict[str, Path]:
    """Anomalib's models, fitted and exported by its own means, by title."""
    from kanoclip.benchmarks.studies.rivals.models import FOR_SPEED, build, fit, lite_weights

    weights = lite_weights()
    found = {}
    for number, rival in enumerate(FOR_SPEED):
        model = build(rival, weights)
        if rival.kind != "efficient_ad":
            fit(model, images)
        # A batch of one, as ours: with the default axes some graphs are specialised to a batch of two.
        place, one = folder / str(number), {"dynamic_axes": {}}
        found[rival.title] = Path(model.to_openvino(place, input_size=(SIDE, SIDE), onnx_kwargs=one))
    return found


def started(code: str, argument: Path, repeats: int) -> tuple[float, float]:
    """Seconds from a process's start to its end with one result, the median; and its largest resident MB."""
    seconds, largest = [], 0.0
    for _ in range(repeats):
        began = perf_counter()
        command = [sys.executable, "-c", code, str(argument)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(perf_counter() - began)
        # Not what wait4 tells: that has the size of the process that started it.
        largest = max(largest, int(done.stdout.split()[-1]) / 1024)
    return float(np.median(seconds)), largest


def with_memory(folder: Path, images: list[Image]) -> dict[str, Path]:
    """Copies of the shipped bundle that have learned the images, by the installed command; by title."""
    good = folder / "good"
    good.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(good / f"{number}.png"), image)
    found = {OURS: folder / "own.kanoclip", ALONE: folder / "alone.kanoclip"}
    for title, flags in ((OURS, ()), (ALONE, ("--references-only",))):
        command = [sys.executable, "-m", "kanoclip.runtime.cli.main", "learn", "--output", str(found[title])]
        subprocess.run([*command, "--source", str(good), "--quiet", *flags], check=True)
    return found


@click.command()
@click.option("--rounds", type=click.IntRange(min=3), default=30, show_default=True)
@click.option("--images", "turn", type=click.IntRange(min=1), default=10, show_default=True, help="Of a turn.")
@click.option("--starts", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file for the figures.")
def main(rounds: int, turn: int, starts: int, output: Path | None) -> None:
    """Measure ours and anomalib's."""
    from anomalib.deploy import OpenVINOInferencer

    from kanoclip.runtime import Detector
    from kanoclip.runtime.engines.openvino import has_bf16

    rng = np.random.default_rng(0)
    images = [cv2.resize(rng.integers(0, 256, (32, 32, 3), np.uint8), (SIDE, SIDE)) for _ in range(4)]
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="kanoclip-rivals-") as scratch:
        ours, theirs = with_memory(Path(scratch), images), exported(Path(scratch), images)
        backends = {FLOAT32: "openvino", DEFAULT: "openvino-bf16" if has_bf16() else "openvino"}
        for precision, backend in backends.items():
            with ExitStack() as stack:
                runs: dict[str, Callable[[], Any]] = {}
                for title, path in ours.items():
                    detector = stack.enter_context(Detector.load(path, backend=backend))
                    runs[title] = partial(detector, images[0])
                chosen = {"INFERENCE_PRECISION_HINT": "f32"} if precision == FLOAT32 else {}
                for title, path in theirs.items():
                    inferencer = OpenVINOInferencer(path, device="CPU", config=chosen)
                    runs[title] = partial(inferencer.predict, images[0])
                times = in_turns(runs, rounds, turn)
            base = np.array(times[OURS])
            for title, found in times.items():
                row = rows.setdefault(title, {})
                row[f"milliseconds_{precision}"] = float(np.median(found))
                row[f"times_ours_{precision}"] = float(np.median(np.array(found) / base))
        for title, row in rows.items():
            code, what = (_OURS, ours[title]) if title in ours else (_THEIRS, theirs[title])
            row["start_seconds"], row["largest_mb"] = started(code, what, starts)
            click.echo(f"{title}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
    if output is not None:
        write_result(output, {"rounds": rounds, "images": turn, "rows": rows})


if __name__ == "__main__":
    main()
