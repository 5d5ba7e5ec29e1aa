"""Search in the gallery: what is found, page by page, and what is refused."""

from __future__ import annotations

import pytest
from page_helpers import a_frame

from kanoclip.runtime.service.page.snapshot_gallery import SnapshotGallery
from kanoclip.runtime.service.page.tools.search import PAGE
from kanoclip.runtime.sinks.snapshots.sink import SnapshotConfig, SnapshotSink


@pytest.fixture
def full(tmp_path):
    """110 snapshots, one a second from 1.7e9 on, by turns of two sources; scores from 0.500 up to 0.609."""
    sink = SnapshotSink(SnapshotConfig(tmp_path / "ring", min_interval_s=0.0, max_count=200), untrained=False)
    for index in range(110):
        sink.write(*a_frame(index, 0.5 + index / 1000, stream=("left", "right <b>")[index % 2], size=(24, 32)))
    sink.close()
    return SnapshotGallery(tmp_path / "ring", lambda: 0.4)


@pytest.mark.parametrize(
    ("query", "frames"),
    [
        ({"after": 1.7e9 + 100}, range(100, 110)),
        ({"before": 1.7e9 + 3}, range(4)),
        ({"after": 1.7e9 + 50, "before": 1.7e9 + 50}, [50]),
        ({"low": 0.6}, range(100, 110)),
        ({"high": 0.5015}, range(2)),
        ({"source": "right <b>", "low": 0.595, "high": 0.6}, [95, 97, 99]),
        ({"source": "nowhere"}, []),
        ({"after": 1.7e9 + 3, "before": 1.7e9 + 2}, []),
        ({"low": "", "source": "left", "before": 1.7e9 + 4}, [0, 2, 4]),
    ],
)
def test_bounds_are_included(full, make_page, query, frames):
    answer = make_page(gallery=full).client.get("/api/search", params=query).json()
    times = [entry["captured_at"] - 1.7e9 for entry in answer["entries"]]
    assert times == sorted(frames, reverse=True) and answer["total"] == len(times)


def test_pages_hold_everything_once_newest_first(full, make_page):
    client = make_page(gallery=full).client
    pages = [client.get("/api/search", params={"page": page}).json() for page in range(4)]
    times = [entry["captured_at"] for page in pages for entry in page["entries"]]
    assert times == sorted(times, reverse=True) and len(times) == len(set(times)) == 110
    assert [len(page["entries"]) for page in pages] == [PAGE, PAGE, 110 - 2 * PAGE, 0]
    assert {(page["total"], page["pages"]) for page in pages} == {(110, 3)}


def test_the_last_ones_in_memory_are_searched_too(make_page):
    page = make_page()
    page.hub.write(*a_frame(1, 0.7))
    page.hub.write(*a_frame(2, 0.9, source="camera 1"))
    assert [row["score"] for row in page.client.get("/api/search?low=0.8").json()["entries"]] == [0.9]


@pytest.mark.parametrize("query", ["low=nan", "after=inf", "page=-1", "page=x", "page=99999999", "folder=/etc"])
def test_what_is_no_search_is_refused(make_page, query):
    answer = make_page().client.get(f"/api/search?{query}")
    assert answer.status_code == 400 and len(answer.json()["error"].splitlines()) == 1
