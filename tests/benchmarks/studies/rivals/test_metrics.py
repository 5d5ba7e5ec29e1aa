"""The comparison of metrics' speed: what is timed gives the figures that the others are to give."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kanoclip.benchmarks.studies.accuracy.metrics import make_images
from kanoclip.benchmarks.studies.rivals import metrics
from kanoclip.runtime.metrics import aupro


def test_ours_is_exact():
    maps = list(make_images(6, 48, metrics.ANOMALOUS))
    found = metrics.ours(maps)
    labels, scores = (np.concatenate([one[k].ravel() for one in maps]) for k in (0, 1))
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert found["aupro"] == pytest.approx(aupro([m for m, _ in maps], [s for _, s in maps], metrics.LIMIT), abs=1e-12)


@pytest.mark.parametrize("kind", list(metrics.KINDS))
def test_each_rival_agrees(kind):
    """Runs where anomalib is installed, which is in an environment of its own."""
    if kind.startswith("torchmetrics"):
        pytest.importorskip("torchmetrics")
    if kind.startswith("anomalib"):
        pytest.importorskip("anomalib")
    maps = list(make_images(4, 48, metrics.ANOMALOUS))
    found, ours = metrics.KINDS[kind](maps), metrics.ours(maps)
    assert found == {name: pytest.approx(ours[name], abs=1e-5) for name in found}
