"""Regions that are drawn on the page: checked as a file's are, and in use at once."""

from __future__ import annotations

import json

import pytest

from kanoclip.runtime.service.page.tools.regions import MAX_REGION

BOX = [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]
HOLE = [[0.4, 0.4], [0.6, 0.4], [0.5, 0.6]]


def test_they_are_used_at_once_read_again_and_saved(make_page, ask, control):
    page = make_page()
    assert page.client.get("/api/region").json() == {"keep": [], "ignore": []}
    answer = ask(page, "/api/region", {"keep": [BOX], "ignore": [HOLE]}).json()
    assert control.roi.keep == (tuple(map(tuple, BOX)),) and answer["note"] == ""
    assert page.client.get("/api/region").json() == {"keep": [BOX], "ignore": [HOLE]}
    assert answer["state"]["changes"] == 1
    assert ask(page, "/api/region/save").json()["saved"] == "/etc/line3.toml"
    ask(page, "/api/region", {"keep": [], "ignore": []})
    assert control.roi is None


def test_thresholds_of_another_region_are_remarked(make_page, ask, control):
    control.becomes(promised=False)
    note = ask(make_page(), "/api/region", {"keep": [BOX]}).json()["note"]
    assert note.startswith("thresholds of class nut were calibrated inside of another region") and "calibrate" in note


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"keep": [[[0.1, 0.1], [1.2, 0.1], [0.5, 0.9]]]}, "outside of the image"),
        ({"keep": [[[0.1, 0.1], [0.1, float("1e400")], [0.5, 0.9]]]}, "outside of the image"),
        ({"keep": [[[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]]}, "has no area"),
        ({"keep": [BOX[:2]]}, "2 different corners"),
        ({"keep": [[[0.1, 0.1], [0.9, 0.8], [0.9, 0.1], [0.1, 0.9]]]}, "crosses itself"),
        ({"keep": [HOLE], "ignore": [BOX]}, "leave nothing of the image"),
        ({"keep": "<b>"}, "is not a list"),
        ({"keep": [[["<b>", 0.1], [0.5, 0.5], [0.9, 0.9]]]}, "is not [x, y]"),
        ({"units": "pixels"}, "send a JSON object with"),
        ({"keep": [[[0.1 + i * 1e-7, 0.1] for i in range(MAX_REGION // 8)]]}, "too long"),
    ],
)
def test_what_is_no_region_is_refused_in_one_line_and_changes_nothing(make_page, control, ask, values, words):
    page = make_page()
    ask(page, "/api/region", {"keep": [BOX]})
    before = control.roi
    proof = page.client.get("/api/session").json()["proof"]
    headers = {"origin": page.base, "x-kanoclip-proof": proof, "content-type": "application/json"}
    content = json.dumps(values).replace("Infinity", "1e400")  # which is JSON, and infinite all the same
    answer = page.client.post("/api/region", content=content, headers=headers)
    assert answer.status_code == 400 and words in answer.json()["error"]
    assert len(answer.json()["error"].splitlines()) == 1 and control.roi is before


def test_another_site_cannot_draw(make_page, control):
    page = make_page()
    for headers in ({}, {"origin": "http://evil.example"}, {"origin": page.base}):
        assert page.client.post("/api/region", json={"keep": [BOX]}, headers=headers).status_code == 403
    assert control.roi is None


def test_a_region_drawn_for_another_class_is_refused(make_page, ask, control):
    """Another browser has chosen one meanwhile."""
    page = make_page()
    assert ask(page, "/api/region", {"class": "nut", "keep": [BOX]}).status_code == 200
    control.choose_class("tile")
    answer = ask(page, "/api/region", {"class": "nut", "keep": [HOLE]})
    assert answer.status_code == 400 and "another class" in answer.json()["error"]
    assert control.roi.keep == (tuple(map(tuple, BOX)),)


def test_a_place_that_cannot_be_written_is_said(make_page, ask, control):
    control.saving = None
    answer = ask(make_page(), "/api/region/save")
    assert answer.status_code == 400 and "read-only" in answer.json()["error"]
