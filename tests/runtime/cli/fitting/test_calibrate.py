"""What `kanoclip-calibrate` warns of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from references import memory

from kanoclip.runtime.cli.fitting.calibrate import reference_warnings


def test_good_frames_that_are_the_references_themselves():
    """A memory has no distance to them: thresholds by them would call every new good frame anomalous."""
    one = replace(memory(4), loo_scores=np.array([0.4, 0.5, 0.45, 0.6], np.float32))
    (said,) = reference_warnings(one, np.array([0.05, 0.1, 0.04, 0.5]))
    assert said.startswith("3 of 4 good frames score below every reference out of sample (0.400)")
    assert reference_warnings(one, np.array([0.05, 0.41, 0.39, 0.55])) == []
    assert reference_warnings(None, np.array([0.05])) == []
    counted_first = replace(one, repeats=(0,))  # a copy's value is none
    assert "(0.450)" in reference_warnings(counted_first, np.array([0.42, 0.44, 0.3]))[0]
