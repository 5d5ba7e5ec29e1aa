"""WinCLIP's windows against loops over the grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from kanoclip.runtime.detect.preprocess import resize
from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.checkpoint import build_model
from kanoclip.train.evaluation.suite.methods import Frozen
from kanoclip.train.evaluation.suite.winclip import TEMPERATURE, WindowPredictor, harmonic, spread, windows
from kanoclip.train.model.kanoclip import ModelConfig, to_pixels


def test_windows_are_every_square_that_fits():
    found = windows((3, 4), 2)
    by_hand = [[4 * y + x, 4 * y + x + 1, 4 * y + x + 4, 4 * y + x + 5] for y in range(2) for x in range(3)]
    assert found.tolist() == by_hand
    assert windows((2, 5), 3).shape == (3, 6)  # a grid that is lower than a window is covered in its height


def test_spread_is_the_harmonic_mean_of_a_patchs_windows(normal):
    rows, shares = windows((3, 4), 2), torch.sigmoid(normal(6))
    got = spread(shares, rows, (3, 4))
    for cell in range(12):
        own = [float(share) for share, row in zip(shares, rows.tolist(), strict=True) if cell in row]
        assert float(got[cell]) == pytest.approx(len(own) / sum(1 / share for share in own), rel=1e-5)
    stack = torch.stack([got, got / 2])
    torch.testing.assert_close(harmonic(stack), 2 * got / 3)


def test_a_map_is_what_the_tower_says_of_each_window_alone(random):
    predictor = Frozen("winclip", "random-tiny", "none").open("cpu")
    assert isinstance(predictor, WindowPredictor) and predictor.about["kind"] == "windows"
    image = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    ((anomaly_map, score),) = predictor.predict([image], "nut")
    model = predictor.model
    with torch.no_grad():
        text = model.text_features(["nut"])[0]
        frame = torch.from_numpy(resize(image, 48, 48)[None])
        tokens = model.tower.embed(to_pixels(frame))

        def share(own):
            feature = F.normalize(model.tower.encode(tokens[:, [0, *(1 + i for i in own)]]).global_token, dim=-1)[0]
            return float(torch.softmax(text @ feature / TEMPERATURE, 0)[1])

        whole, inverse = share(range(36)), np.zeros((3, 36))
        inverse[0] = 1 / max(whole, 1e-6)
        for scale, side in enumerate((2, 3), start=1):
            found = [[] for _ in range(36)]
            for y in range(7 - side):
                for x in range(7 - side):
                    own = [6 * (y + j) + x + i for j in range(side) for i in range(side)]
                    value = share(own)
                    for cell in own:
                        found[cell].append(1 / max(value, 1e-6))
            inverse[scale] = [sum(values) / len(values) for values in found]
        cells = torch.tensor(3 / inverse.sum(0), dtype=torch.float32).view(1, 6, 6)
        expected = model.head.smoothing(cells)[0].numpy()
    assert score == pytest.approx(whole, abs=1e-5)
    assert np.std(expected) > 1e-4
    np.testing.assert_allclose(anomaly_map, expected, atol=1e-4)


def test_a_stem_gives_no_windows():
    loaded = build_model(ModelConfig("nano", (256, 256), vv=False), "none")
    with pytest.raises(CheckpointError, match=r"nano gives no window's answer .*vit-b-16-plus-240"):
        WindowPredictor(loaded, "cpu", "x")
