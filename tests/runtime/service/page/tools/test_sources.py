"""Sources by the page: they are checked first, opened once at a time, and called what they were named."""

from __future__ import annotations

import logging

import pytest

TEST = "test://?width=64&height=64&fps=5"


def test_one_is_added_with_its_name_shown_with_a_label_and_removed(make_page, ask, control):
    page = make_page()
    name = '<b>"right"</b>/../x'
    answer = ask(page, "/api/sources", {"source": TEST, "name": name}).json()
    assert answer["name"] == name and answer["state"]["sources"] == ["camera 0", name]
    assert answer["state"]["streams"] == ["", name]  # the frames of the one that was alone stay as they were
    ask(page, "/api/sources/label", {"name": "camera 0", "label": "Left <i>"})
    rows = page.facts.sources(control.state(), control.progress())
    assert [(row["name"], row["label"], row["stream"]) for row in rows] == [
        ("camera 0", "Left <i>", ""),
        (name, name, name),
    ]
    ask(page, "/api/sources/label", {"name": "camera 0", "label": ""})
    assert page.facts.labels == {}
    assert ask(page, "/api/sources/remove", {"name": name}).json()["state"]["sources"] == ["camera 0"]
    assert ask(page, "/api/sources/remove", {"name": name}).status_code == 400


def test_without_a_name_it_is_called_by_its_address_and_never_like_another(make_page, ask):
    page = make_page()
    names = [ask(page, "/api/sources", {"source": TEST}).json()["name"] for _ in range(2)]
    assert names == [TEST, f"{TEST} (2)"]


def test_no_password_is_in_answers_or_the_log(make_page, ask, caplog):
    page = make_page(options={"allow_sources": ("rtsp://127.0.0.1",)})
    with caplog.at_level(logging.DEBUG):
        for spec in ("rtsp://user:s3cret@127.0.0.1:9/x", "rtsp://user:s3cret@10.0.0.1/x"):
            answer = ask(page, "/api/sources", {"source": spec})
            assert answer.status_code == 400 and "s3cret" not in answer.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "values",
    [
        {"source": 0},
        {"source": " "},
        {"name": "x"},
        {"source": TEST, "name": "x" * 61},
        {"source": TEST, "name": "a\nb"},
        {"source": TEST, "name": 5},
        {"source": "test://?width=1"},
        {"source": "/etc/passwd"},
        {"source": "9999"},
        {"source": TEST, "camera": True},
    ],
)
def test_what_is_no_source_is_refused_in_one_line(make_page, ask, control, values):
    answer = ask(make_page(), "/api/sources", values)
    assert answer.status_code == 400 and len(answer.json()["error"].splitlines()) == 1
    assert control.state().sources == ("camera 0",)
