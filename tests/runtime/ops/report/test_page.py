"""The page, from tables that were scored: self-contained, escaped, right, and small."""

from __future__ import annotations

import base64
import html.parser
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from kanoclip.runtime.detect.settings.settings import Decision, Settings
from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.ops.report.cases import make_case, overlay
from kanoclip.runtime.ops.report.comparison import compare_results
from kanoclip.runtime.ops.report.page import Options, make_page
from kanoclip.runtime.ops.report.results import Results
from kanoclip.runtime.ops.score.bulk import Job, score
from kanoclip.runtime.ops.score.scorer import Engine, Scorer, manifest_digest

VOID = {"meta", "img", "input", "br"}


class Here:
    """Scores in this process."""

    def __init__(self, engine, folder, on_engine):
        self.scorer, self.folder, self.on_engine = Scorer(engine), folder, on_engine

    def run(self, slices, on_tick):
        self.on_engine(self.scorer.backend, self.scorer.runs_on)
        for where in slices:
            yield self.scorer.score(where.number, self.folder.items(where))


@pytest.fixture(scope="module")
def make_results(toy_bundle, tmp_path_factory):
    """Scores a folder of images that a function draws: number -> image, or bytes for what is none."""

    def make(draw, count=200, name="results", maps=None, **decision) -> Results:
        root = tmp_path_factory.mktemp("run")
        folder = root / "images" / "line <1>"
        folder.mkdir(parents=True)
        for number in range(count):
            drawn = draw(number)
            path = folder / f"{number:03}.png"
            if isinstance(drawn, bytes):
                path.write_bytes(drawn)
            else:
                assert cv2.imwrite(str(path), drawn)
        settings = Settings().overridden(Decision(**{"threshold": 0.8, "pixel_threshold": 0.8} | decision))
        engine = Engine(
            toy_bundle, manifest_digest(toy_bundle), "onnxruntime", "cpu", 1, settings, "object", maps is not None
        )
        job = Job(str(root / "images"), root / f"{name}.parquet", engine, slice=8, maps=maps)
        score(job, Here)
        return Results(job.output)

    return make


SCENE = cv2.GaussianBlur(np.random.default_rng(5).normal(size=(200, 240)), (0, 0), 6)
SCENE = 90 + 25 * SCENE / SCENE.std()


def line(number, across=0, darker=0.0, spot=False):
    """A part that lies in front of the same background."""
    rng = np.random.default_rng(number)
    image = SCENE[50:146, 60 + across : 188 + across] * (1 - darker) + rng.normal(0, 4, (96, 128)) + rng.normal(0, 3)
    grey = np.clip(image, 0, 255).astype(np.uint8)
    if spot:
        cv2.circle(grey, (90, 30), 9, 255, -1)
    return cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)


@pytest.fixture(scope="module")
def good(make_results):
    return make_results(lambda n: line(n, spot=n in (7, 50)), name="good")


@pytest.fixture(scope="module")
def knocked(make_results):
    """From image 97 to 144 the camera looks elsewhere, and it is darker."""

    def draw(n):
        if n == 20:
            return b"none"
        return line(200 + n, across=10 if 96 <= n < 144 else 0, darker=0.3 if 96 <= n < 144 else 0.0, spot=n in (3, 60))

    return make_results(draw, name="knocked")


class Structure(html.parser.HTMLParser):
    """Opened and closed elements, in order, and what they would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.found, self.text = [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    return structure


def test_it_needs_nothing_beside_it(knocked, good):
    page = make_page(knocked, good, Options())
    structure = parsed(page)
    assert "script" not in structure.found and "link" not in structure.found
    assert structure.loads and all(value.startswith("data:image/") for value in structure.loads)
    assert not re.search(r"https?:|url\(|@import", page)
    assert len(page) < 2_000_000


def test_names_are_escaped(knocked):
    page = make_page(knocked, None, Options(worst=2, closest=0))
    assert "line &lt;1&gt;" in page and "line <1>" not in page


def test_the_worst_images_and_what_was_found_in_them(knocked):
    page = make_page(knocked, None, Options(worst=5, closest=3))
    first = knocked.read(knocked.worst(5))
    assert {Path(row["path"]).stem for row in first[:2]} == {"003", "060"}
    assert [row["score"] for row in first] == sorted((row["score"] for row in first), reverse=True)
    shown = re.findall(r'<figure class="case">.*?</figure>', page, re.DOTALL)
    assert len(shown) == 8
    assert (
        "anomalous" in shown[0] and "1 region" in shown[0] and 'class="mask"' in shown[0] and 'class="box"' in shown[0]
    )
    assert "normal" in shown[4] and "no region" in shown[4]
    jpeg = base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", shown[0])[1])
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    original = cv2.imread(first[0]["path"])
    assert np.abs(image.astype(int) - original).mean() < 6


def test_the_outline_lies_on_the_spot(knocked):
    [row] = knocked.read([3])
    points = np.array(re.findall(r"[ML]([0-9.-]+) ([0-9.-]+)", overlay(row)), float)
    # The map has 4x3 pixels of the image in each of its own, and those at the circle's edge are below the threshold.
    assert np.abs(points.mean(axis=0) - (90, 30)).max() < 4
    assert 8 < np.ptp(points[:, 0]) < 24 and 8 < np.ptp(points[:, 1]) < 24


def test_what_changed_is_said_and_where(knocked, good):
    comparison = compare_results(good, knocked)
    assert comparison.level == "marked"
    [move] = comparison.moves
    assert (move.first, move.last) == (96, 143)
    assert move.shift.across == pytest.approx(-10 / 128, abs=0.02) and abs(move.shift.down) < 0.02
    first, *others = comparison.sentences()
    assert first.startswith("Images 97 to 144 are shifted by") and "to the left" in first and "camera" in first
    assert any("Brightness" in one and "lighting" in one for one in others)
    page = make_page(knocked, good, Options(images=False))
    assert 'class="verdict marked"' in page.replace("section class", "class") or "verdict marked" in page
    assert "Changed since the reference" in page and first in page


def test_the_same_line_on_another_day_has_not_changed(good, make_results):
    again = make_results(lambda n: line(500 + n, spot=n == 12), name="again")
    comparison = compare_results(good, again)
    assert comparison.level == "none" and comparison.sentences() == [] and comparison.moves == ()
    assert "Nothing has changed" in make_page(again, good, Options(images=False))


def test_images_that_are_gone_or_changed(knocked):
    [row] = knocked.read([0])
    assert make_case({**row, "path": "/nowhere.png"}, None, 0.5).reason == "No such file or directory"
    assert "has changed" in make_case({**row, "width": 5}, None, 0.5).reason
    page = make_page(knocked, None, Options(images=False))
    assert "data:image/jpeg" not in page and "images left out" in page


def test_maps_are_painted_where_they_were_kept(make_results, tmp_path):
    results = make_results(lambda n: line(n, spot=n == 2), count=6, maps=tmp_path / "maps")
    page = make_page(results, None, Options(worst=2, closest=0, maps=tmp_path / "maps"))
    assert page.count('class="heatmap"') == 2 and 'id="heatmap"' in page
    [case] = [make_case(row, tmp_path / "maps", 0.5) for row in results.read([2])]
    assert case.overlay is not None and case.overlay != case.image
    assert make_case(results.read([2])[0], tmp_path / "elsewhere", 0.5).overlay is None


def test_images_without_a_score_are_listed(knocked):
    page = make_page(knocked, None, Options(images=False))
    assert "Without a score" in page and "not an image that OpenCV can decode" in page and "020.png" in page


def test_a_run_of_which_nothing_could_be_read(make_results, good):
    empty = make_results(lambda n: b"none", count=3)
    for page in (
        make_page(empty, None, Options()),
        make_page(empty, good, Options()),
        make_page(good, empty, Options()),
    ):
        parsed(page)
    assert "100.00% of the images have no score" in make_page(empty, good, Options())


def test_one_image(make_results):
    parsed(make_page(make_results(line, count=1), None, Options()))


def test_groups(knocked):
    [group] = knocked.groups("class")
    assert (group.name, group.images, group.anomalous, group.unscored) == ("object", 200, 2, 1)
    [folder] = knocked.groups("folder")
    assert folder.name.endswith("images/line <1>")
    assert folder.highest == np.nanmax(knocked.scores) and folder.median == np.nanmedian(knocked.scores)


def test_rows_come_in_the_order_asked_for(knocked):
    rows = knocked.read([60, 3, 195, 0])
    assert [Path(row["path"]).stem for row in rows] == ["060", "003", "195", "000"]


def test_another_bundle_or_engine_is_remarked(knocked, good):
    for change, told in (({"bundle_sha256": "x"}, "another bundle"), ({"backend": "openvino"}, "differ a little")):
        other = Results(good.path)
        other.run = {**other.run, **change}
        assert any(told in line for line in compare_results(other, knocked).remarks)


def test_what_is_no_table_is_refused(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.parquet").write_bytes(b"no")
    pq.write_table(pa.table({"path": ["x"]}), tmp_path / "b.parquet")
    for name, told in (("a", "no table of kanoclip-score"), ("b", "no table of kanoclip-score"), ("c", "no such file")):
        with pytest.raises(SinkError, match=told):
            Results(tmp_path / f"{name}.parquet")
