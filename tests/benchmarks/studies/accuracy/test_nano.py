import cv2
import numpy as np
import pytest

from kanoclip.benchmarks.studies.accuracy.nano import decision_table, decisions, spread


@pytest.fixture
def parts(tmp_path):
    """Two categories whose anomalous images are bright; one good image is bright too."""
    parts = {"nut": {"good": [10, 20, 250], "bad": [240, 30]}, "bolt": {"good": [5], "bad": [240]}}
    for category, kinds in parts.items():
        for kind, tones in kinds.items():
            folder = tmp_path / category / "test" / kind
            folder.mkdir(parents=True)
            for number, tone in enumerate(tones):
                cv2.imwrite(str(folder / f"{number}.png"), np.full((32, 32, 3), tone, np.uint8))
    return tmp_path


def test_decisions_are_those_of_the_bundles_own_threshold(toy_bundle, parts):
    found = decisions(toy_bundle, parts)  # the toy's score is the brightest pixel, its threshold 0.5
    assert found["nut"] == {"recall": 0.5, "false_positives": pytest.approx(1 / 3), "without_region": 0}
    assert found["bolt"] == {"recall": 1, "false_positives": 0, "without_region": 0}
    assert found["mean"]["recall"] == 0.75 and found["mean"]["false_positives"] == pytest.approx(1 / 6)
    shown = decision_table({"toy.kanoclip": found})
    assert "toy.kanoclip, false positives" in shown and "16.7" in shown and "75.0" in shown


def test_spread_has_mean_and_deviation_and_leaves_out_what_is_unknown():
    def row(image, pixel):
        return {"image_auroc": image, "pixel_auroc": pixel, "aupro": None}

    trainings = [
        {"nano": {"nut": row(0.5, None), "mean": row(0.5, 0.8)}},
        {"nano": {"nut": row(0.7, None), "mean": row(0.7, 0.8)}},
    ]
    found = spread(trainings)["nano"]
    assert found["nut"]["image_auroc"] == pytest.approx(0.6) and found["nut"]["image_auroc_std"] == pytest.approx(0.1)
    assert found["mean"]["pixel_auroc_std"] == 0
    assert found["nut"]["pixel_auroc"] is None and found["mean"]["aupro_std"] is None
