"""Two runs over the same images side by side, as one image and a table: what `make demo` ends with.

kanoclip-run --source parts/ --output before/ --jsonl before/frames.jsonl
kanoclip-run part.kanoclip --source parts/ --output after/ --jsonl after/frames.jsonl
python examples/overview.py parts/ before/ after/ --output overview.jpg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

SIDE, GAP, LINE = 220, 6, 24


def frames_of(run: Path) -> dict[Path, dict]:
    """What a run found, by image."""
    lines = (run / "frames.jsonl").read_text(encoding="utf-8").splitlines()
    return {Path(frame["source"]): frame for frame in map(json.loads, lines)}


def spread(paths: list[Path], most: int) -> list[Path]:
    """Some of the images of each folder, evenly."""
    folders = sorted({path.parent for path in paths})
    chosen = []
    for folder in folders:
        own = sorted(path for path in paths if path.parent == folder)
        count = min(len(own), max(most // len(folders), 1))
        chosen += [own[number * len(own) // count] for number in range(count)]
    return chosen


def cell(path: Path, text: str = "") -> np.ndarray:
    """An image in a square, with a line of text below: uint8 [SIDE + LINE, SIDE, 3], BGR."""
    image = cv2.imread(str(path))
    scale = SIDE / max(image.shape[:2])
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:SIDE, :SIDE]
    canvas = np.full((SIDE + LINE, SIDE, 3), 255, np.uint8)
    canvas[: small.shape[0], : small.shape[1]] = small
    cv2.putText(canvas, text, (2, SIDE + 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return canvas


def text_of(name: str, frame: dict) -> str:
    """A verdict in a few words."""
    return f"{name}: {frame['score']:.3f} {'>=' if frame['is_anomalous'] else '<'} {frame['threshold']:.3f}"


def main() -> None:
    """Draws the overview and prints the table."""
    parser = argparse.ArgumentParser(description="Two runs over the same images side by side.")
    for name in ("source", "before", "after"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--output", type=Path, default=Path("overview.jpg"))
    parser.add_argument("--rows", type=int, default=6)
    given = parser.parse_args()
    before, after = frames_of(given.before), frames_of(given.after)
    print(f"{'folder':<16}{'images':>8}{'anomalous before':>18}{'after':>8}")
    for folder in sorted({path.parent for path in before}):
        own = [path for path in before if path.parent == folder]
        counts = [sum(run[path]["is_anomalous"] for path in own) for run in (before, after)]
        print(f"{folder.name:<16}{len(own):>8}{counts[0]:>18}{counts[1]:>8}")
    rows = []
    for path in spread(list(before), given.rows):
        inside = path.relative_to(given.source)
        cells = [cell(path, str(inside))]
        for name, folder, run in (("before", given.before, before), ("after", given.after, after)):
            cells.append(cell(folder / inside, text_of(name, run[path])))
        rows.append(
            np.concatenate([np.pad(one, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for one in cells], 1)
        )
    cv2.imwrite(str(given.output), np.concatenate(rows))
    print(f"input, before and after: {given.output}")


if __name__ == "__main__":
    main()
