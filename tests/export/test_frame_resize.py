from __future__ import annotations

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.export.checks import check_graph
from kanoclip.export.frame_resize import FrameResize, resize_matrices
from kanoclip.export.graph import DeployGraph
from kanoclip.export.onnx_writer import BatchSpec, write_onnx
from kanoclip.runtime.detect.preprocess import resize
from kanoclip.train.model.kanoclip import to_pixels

SIDE = st.integers(1, 160)


def difference(frame, target):
    mine = FrameResize(frame.shape[:2], target)(frame[None]).numpy()[0]
    return np.abs(mine - resize(frame, *target))


@settings(max_examples=80, deadline=None)
@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE), st.integers(0, 2**32 - 1))
def test_noise_of_any_size_is_resized_as_the_runtime_does_it(source, target, seed):
    frame = np.random.default_rng(seed).integers(0, 256, (*source, 3), np.uint8)
    found = difference(frame, target)
    halvings = int(np.log2(max(1, min(source[0] / target[0], source[1] / target[1]))))
    assert found.max() <= 1 + (halvings > 1)  # every one of OpenCV's steps rounds by up to a half
    assert found.mean() <= 0.35 or found.size < 1000  # of a few values the mean is anything


@pytest.mark.parametrize("source", [(1080, 1920), (720, 1280), (2160, 3840), (480, 640), (512, 512), (1240, 500)])
@pytest.mark.parametrize("side", [256, 336])
def test_photographs_at_cameras_sizes_differ_by_one_at_most(request, source, side):
    folder = request.config.rootpath / "examples" / "hazelnut_toy" / "test"
    photograph = cv2.imread(str(folder / "colour" / "00.jpg"))
    frame = cv2.resize(photograph, source[::-1], interpolation=cv2.INTER_CUBIC)
    found = difference(frame, (side, side))
    assert found.max() <= 1 and found.mean() < 0.2, (found.max(), found.mean())


@given(st.tuples(SIDE, SIDE), st.tuples(SIDE, SIDE))
def test_rows_sum_to_one_and_nothing_is_negative(source, target):
    for matrix, a, b in zip(resize_matrices(source, target)[:2], target, source, strict=True):
        assert matrix.shape == (a, b) and matrix.min() >= 0
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)


def test_a_frame_of_the_models_size_stays_as_it_is():
    rows, columns, bias = resize_matrices((32, 48), (32, 48))
    assert bias == 0
    for matrix in (rows, columns):
        np.testing.assert_array_equal(matrix, np.eye(len(matrix)))


CAMERA = (101, 130)


@pytest.mark.parametrize(
    ("precision", "bound", "batch"),
    [
        pytest.param("fp32", 1e-4, BatchSpec(3, dynamic=True), marks=pytest.mark.nightly),
        pytest.param("fp16", 2e-2, BatchSpec(3, dynamic=True), marks=pytest.mark.nightly),
        ("fp16", 2e-2, BatchSpec(3)),
    ],
)
def test_a_graph_that_resizes_gives_the_models_answers_for_the_resized_frame(tiny, tmp_path, precision, bound, batch):
    path = tmp_path / "model.onnx"
    graph = DeployGraph(tiny.model, ["bolt"], precision, CAMERA)
    write_onnx(graph, CAMERA, batch, 18, path)
    check_graph(path, precision)
    frames = np.random.default_rng(0).integers(0, 256, (3, *CAMERA, 3), dtype=np.uint8)
    small = FrameResize(CAMERA, (48, 48))(frames)
    assert small.shape == (3, 48, 48, 3)
    with torch.no_grad():
        wanted = tiny.model(to_pixels(small), tiny.model.text_features(["bolt"]))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for rows in (slice(3), slice(1, 2)) if batch.dynamic else (slice(3),):
        maps, scores = session.run(["map", "score"], {"frame": frames[rows]})
        assert np.abs(maps - wanted.map[rows].numpy()).max() < bound
        assert np.abs(scores - wanted.score[rows].numpy()).max() < bound
    flipped = session.run(["map"], {"frame": frames[:, ::-1].copy()})[0]
    assert np.abs(flipped - wanted.map.numpy()).max() > 5 * bound, "the frame decides the answer"


def test_the_references_drift_from_the_runtime_is_seen():
    frames = np.random.default_rng(0).integers(0, 256, (2, *CAMERA, 3), dtype=np.uint8)
    resizer = FrameResize(CAMERA, (48, 48))
    assert resizer.drift(frames) == 1
    resizer.columns = resizer.columns.flip(1)
    assert resizer.drift(frames) > 20
