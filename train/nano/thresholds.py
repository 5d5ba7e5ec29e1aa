"""Thresholds for a bundle that nobody has calibrated yet: few false alarms on good generated pictures of other classes.

python -m kanoclip.train.nano.thresholds --bundle nano.kanoclip --root other-classes --report thresholds.json
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from kanoclip.runtime.bundle import Bundle
from kanoclip.runtime.calibration.conformal import bound
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.files import replace_file
from kanoclip.runtime.manifest import MANIFEST_NAME, Thresholds
from kanoclip.train.data.registry import open_dataset
from kanoclip.train.evaluation.evaluate import Case, EvaluationConfig, evaluate
from kanoclip.train.evaluation.predictor import BundlePredictor

FALSE_ALARMS = 0.05
"""Share of good pictures that may be called anomalous."""


def set_thresholds(bundle: Path, root: Path) -> dict[str, float]:
    """Measures a bundle on a generated dataset and writes its manifest anew.

    Args:
        bundle: Its classes need `object`, or be one.
        root: What `kanoclip.train.nano.tree` wrote.

    Returns:
        The thresholds, and the shares of good and of anomalous pictures at or above them.

    Raises:
        KanoclipError: Bundle or dataset is no good, or has too few good pictures.
    """
    good: list[float] = []
    bad: list[float] = []
    peaks: list[float] = []

    # Numbers only: a kept case would hold its picture and map.
    def keep(case: Case) -> None:
        (bad if case.sample.anomalous else good).append(case.score)
        if not case.sample.anomalous:
            peaks.append(float(case.map.max()))

    predictor = BundlePredictor(bundle, "auto", "cpu", None)
    try:
        # No pixel is ranked here.
        dataset = replace(open_dataset("mvtec", root), pixel_labels=False)
        evaluate(dataset, predictor, EvaluationConfig(), observe=keep)
    finally:
        predictor.close()
    promised = bound(len(good), FALSE_ALARMS)
    image, pixel = promised.threshold(good), promised.threshold(peaks)
    origin = (
        f"conformal: false-alarm rate {FALSE_ALARMS:g} by {len(good)} good generated pictures; "
        "not calibrated on real ones"
    )
    manifest = replace(Bundle.open(bundle).manifest, thresholds=Thresholds(image, pixel, 0, origin))
    replace_file(bundle / MANIFEST_NAME, manifest.to_json().encode())

    def reached(scores: list[float]) -> float:
        return float(np.mean([score >= image for score in scores])) if scores else float("nan")

    return {"image": image, "pixel": pixel, "false_alarms": reached(good), "found": reached(bad)}


@click.command()
@click.option("--bundle", type=click.Path(exists=True, path_type=Path), required=True, help="Its manifest is changed.")
@click.option("--root", type=click.Path(exists=True, path_type=Path), required=True, help="Generated dataset.")
@click.option("--report", type=click.Path(path_type=Path), required=True, help="JSON file for what was found.")
def main(bundle: Path, root: Path, report: Path) -> None:
    """Set a bundle's thresholds by good generated pictures."""
    try:
        found = set_thresholds(bundle, root)
    except KanoclipError as error:
        raise click.ClickException(str(error)) from error
    replace_file(report, (json.dumps(found, indent=2) + "\n").encode())
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()
