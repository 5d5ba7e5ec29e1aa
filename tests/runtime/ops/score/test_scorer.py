"""One engine and the rows it makes."""

from __future__ import annotations

import io
import json
import os
import shutil

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from kanoclip.runtime import Detector
from kanoclip.runtime.detect.settings.roi_file import read_roi
from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.errors import BundleError
from kanoclip.runtime.ops.score.listing import Item, list_items
from kanoclip.runtime.ops.score.scorer import Scorer
from kanoclip.runtime.ops.score.table import MEAN_KEY, decode_runs, schema, unpack_sum


def rows_of(part):
    return pq.read_table(io.BytesIO(part.table)).to_pylist()


def test_rows_are_what_the_detector_says(make_engine, pictures, toy_bundle):
    items = list(list_items(str(pictures)))
    settings = Settings().overridden(Decision(pixel_threshold=0.55, threshold=0.6, min_area=3))
    scorer = Scorer(make_engine(settings=settings))
    part = scorer.score(5, items)
    rows = rows_of(part)
    table = pq.read_table(io.BytesIO(part.table))
    assert table.schema.remove_metadata().equals(schema())
    assert [row["path"] for row in rows] == [item.path for item in items]
    with Detector.load(toy_bundle, backend="onnxruntime", device="cpu", threads=1, settings=settings) as detector:
        total = np.zeros((64, 64), np.uint64)
        for row in rows:
            image = cv2.imread(row["path"])
            if image is None:
                assert row["error"] == "not an image that OpenCV can decode"
                assert all(row[name] is None for name in row if name not in ("path", "class", "error"))
                continue
            found = detector(image)
            assert row["score"] == found.score and row["is_anomalous"] == found.is_anomalous
            assert row["threshold"] == 0.6 and row["class"] == "object" and row["error"] is None
            assert [(r["x"], r["y"], r["width"], r["height"], r["score"], r["area"]) for r in row["regions"]] == [
                (r.x, r.y, r.width, r.height, r.score, r.area) for r in found.regions
            ]
            assert np.array_equal(decode_runs(row["mask"]["counts"], *row["mask"]["size"]), found.map >= 0.55)
            assert row["peak"] == found.map.max()
            assert (row["height"], row["width"]) == (20, 30)
            assert row["brightness"] == pytest.approx(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean() / 255, abs=0.05)
            total += cv2.resize(cv2.cvtColor(cv2.resize(image, (32, 32)), cv2.COLOR_BGR2GRAY), (64, 64))
    assert part.number == 5 and part.unscored == 1
    assert part.anomalous == sum(bool(row["is_anomalous"]) for row in rows) > 0
    sums = unpack_sum(table.schema.metadata[MEAN_KEY])
    assert sums.shape == (1, 64, 64)
    assert np.abs(sums[0] / 39 - total / 39.0).mean() < 2


def test_readers_and_care_change_nothing(make_engine, pictures):
    items = list(list_items(str(pictures)))
    plain = Scorer(make_engine()).score(0, items)
    assert Scorer(make_engine(readers=4)).score(0, items) == plain
    places = []
    assert Scorer(make_engine(readers=4)).score(0, items, careful=True, on_image=places.append) == plain
    assert places == list(range(len(items)))


def test_an_image_that_is_left_out_is_not_read(make_engine, pictures):
    items = list(list_items(str(pictures)))[:5]
    places = []
    rows = rows_of(
        Scorer(make_engine()).score(
            0, [*items[:3], Item("/dev/nowhere")], left_out={1: "it kills", 3: "so does it"}, on_image=places.append
        )
    )
    assert [row["error"] for row in rows] == [None, "it kills", None, "so does it"]


def test_batches_of_one_class_in_the_order_of_the_list(make_toy_bundle, make_engine, pictures, tmp_path):
    """Class 1 inverts the map; a batch holds one class, and an unknown one is a row's error."""
    bundle = make_toy_bundle(tmp_path / "two.kanoclip", classes=("plain", "inverse"), max_batch=4)
    paths = [item.path for item in list_items(str(pictures))][:9]
    kinds = ["plain", "plain", "inverse", "plain", "other", "inverse", "inverse", None, None]
    items = [Item(path, kind) for path, kind in zip(paths, kinds, strict=True)]
    rows = rows_of(Scorer(make_engine(bundle=bundle, class_name="inverse")).score(0, items))
    alone = Scorer(make_engine(bundle=bundle, class_name="inverse"))
    for row, item in zip(rows, items, strict=True):
        assert row == rows_of(alone.score(0, [item]))[0]
        assert row["class"] == (item.class_name or "inverse")
    assert "unknown class 'other'" in rows[4]["error"]


def test_a_region_of_interest_and_images_of_another_shape(make_engine, pictures, tmp_path):
    """Its polygons were drawn on wide images: what does not fit is told for the image, and the run goes on."""
    corners = {"label": "keep", "shape_type": "rectangle", "points": [[0, 0], [640, 240]]}
    (tmp_path / "roi.json").write_text(json.dumps({"imageWidth": 640, "imageHeight": 480, "shapes": [corners]}))
    settings = Settings().overridden(Decision(roi=read_roi(tmp_path / "roi.json")))
    wide = tmp_path / "wide.png"
    assert cv2.imwrite(str(wide), np.full((48, 64, 3), 200, np.uint8))
    items = [Item(str(pictures / "line0" / "3.png")), Item(str(wide))]
    other, fitting = rows_of(Scorer(make_engine(settings=settings)).score(0, items))
    assert "was drawn on an image of 640x480, and this frame has 30x20" in other["error"]
    mask = decode_runs(fitting["mask"]["counts"], *fitting["mask"]["size"])
    assert mask[:15].all() and not mask[17:].any()


def test_maps_are_kept_in_sixteen_bits(make_engine, pictures, toy_bundle):
    items = list(list_items(str(pictures)))[:3]
    part = Scorer(make_engine(maps=True)).score(70, items)
    assert list(part.maps) == [row["map_file"] for row in rows_of(part)] == [f"00000070/0000{n}.png" for n in range(3)]
    with Detector.load(toy_bundle, backend="onnxruntime", device="cpu", threads=1) as detector:
        for item, content in zip(items, part.maps.values(), strict=True):
            kept = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            assert kept.dtype == np.uint16
            assert np.abs(kept / 65535 - detector(cv2.imread(item.path)).map).max() <= 0.5 / 65535 + 1e-7


def test_names_that_are_no_utf8_are_written_as_escapes(make_engine, pictures, tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.png"
    shutil.copy(pictures / "line0" / "3.png", raw)
    [row] = rows_of(Scorer(make_engine()).score(0, [Item(os.fsdecode(raw))]))
    assert row["path"] == f"{tmp_path}/\\xff\\xfe.png" and row["error"] is None


def test_another_bundle_is_refused(make_engine):
    with pytest.raises(BundleError, match="not the bundle that the run began with"):
        Scorer(make_engine(bundle_sha256="0" * 64))


def test_the_backends_name_is_one_that_can_be_asked_for(make_engine):
    scorer = Scorer(make_engine(backend="auto"))
    assert scorer.backend in ("onnxruntime", "openvino", "openvino-bf16")
    assert Scorer(make_engine(backend=scorer.backend)).runs_on == scorer.runs_on
