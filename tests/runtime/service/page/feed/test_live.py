"""The live connection: what a browser is told, when, and what it costs when it is silent."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest
from page_helpers import TOKEN, FakeControl, a_frame, unpack
from starlette.websockets import WebSocketDisconnect

from kanoclip.runtime.service.page.feed import live as live_module
from kanoclip.runtime.service.page.feed.live import MAX_WATCHERS, NO_ANSWER, TOO_MANY, Request, Watcher
from kanoclip.runtime.stream.control.protocol import Control

ORIGIN = {"origin": "http://127.0.0.1:8080"}


def request(**values):
    return json.dumps({"stream": "", "pictures": True, "span": 60} | values)


@pytest.fixture
def page(make_page):
    return make_page()


def watch(page, **headers):
    return page.client.websocket_connect("ws://127.0.0.1:8080/api/live", headers=ORIGIN | headers)


def test_a_browser_is_told_all_it_shows(page):
    page.hub.write(*a_frame(3, 0.9))
    with watch(page) as browser:
        browser.send_text(request())
        head, jpeg, png = unpack(browser.receive_bytes())
    assert head["state"]["threshold"] == 0.5 and head["state"]["classes"] == ["nut", "tile"]
    assert head["picture"]["score"] == 0.9 and head["picture"]["regions"][0]["x"] == 40
    assert jpeg.startswith(b"\xff\xd8") and png.startswith(b"\x89PNG")
    (source,) = head["sources"]
    assert source["name"] == "camera 0" and source["frames"] == 1 and source["alarm"] and source["reconnects"] == 3
    ((_, low, high, anomalous),) = head["scores"]["rows"]
    assert (low, high, anomalous) == (0.9, 0.9, 1)
    health = head["health"]
    assert health["stages"] == [{"name": "inference", "mean": 9.0, "p50": 8.0, "p95": 11.0, "p99": 12.0}]
    assert health["latency_ms"] == {"p50": 20.0, "p95": 30.0, "p99": 40.0}
    assert health["sink_dropped"] == {"video": 7} and health["memory_bytes"] > 1 << 20 and health["watching"] == 1


def test_only_news_is_told(page):
    page.hub.write(*a_frame(0, 0.2))
    with watch(page) as browser:
        browser.send_text(request())
        first, *_ = unpack(browser.receive_bytes())
        started = time.monotonic()
        browser.send_text(request())
        second, jpeg, png = unpack(browser.receive_bytes())
        assert time.monotonic() - started > 0.1  # nothing new: it took its time
        page.hub.write(*a_frame(1, 0.3))
        browser.send_text(request())
        third, *_ = unpack(browser.receive_bytes())
    assert "picture" in first and "picture" not in second and (jpeg, png) == (b"", b"")
    assert "health" in first and "health" not in second
    assert third["picture"]["frame"] == 1 and third["scores"]["from"] == first["scores"]["rows"][-1][0]


def test_another_source_starts_anew(make_page, control):
    control.sources = ("left", "right")
    control.becomes(sources=("left", "right"), streams=("left", "right"))
    page = make_page()
    page.hub.write(*a_frame(5, 0.1, stream="left"))
    page.hub.write(*a_frame(6, 0.2, stream="right"))
    with watch(page) as browser:
        # A browser knows none at first, and may know one that was there before the server was started anew.
        for asked, name, index in (("", "left", 5), ("right", "right", 6), ("gone", "left", 5)):
            browser.send_text(request(stream=asked))
            head, *_ = unpack(browser.receive_bytes())
            assert head["picture"]["frame"] == index and head["picture"]["stream"] == name
            assert len(head["scores"]["rows"]) == 1
            assert [source["stream"] for source in head["sources"]] == ["left", "right"]


def test_a_hidden_tab_gets_no_images(page):
    page.hub.write(*a_frame(0, 0.9))
    with watch(page) as browser:
        browser.send_text(request(pictures=False))
        head, jpeg, _ = unpack(browser.receive_bytes())
    assert "picture" not in head and jpeg == b"" and head["sources"][0]["alarm"]


def test_another_span_is_told_in_full(page):
    for index in range(3):
        page.hub.write(*a_frame(index, 0.2))
    watcher = Watcher(page.facts, page.memory)
    for span in (60, 600, 3600):
        head, *_ = unpack(watcher.update(Request(span=span)))
        assert head["scores"]["span"] == span and head["scores"]["from"] == 0 and head["scores"]["rows"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", request(span=7), request(pictures=1), "[" * 4000, request(stream=None)]
)
def test_what_is_not_understood_ends_the_connection(page, text):
    with watch(page) as browser:
        browser.send_text(text)
        with pytest.raises(WebSocketDisconnect) as closed:
            browser.receive_bytes()
    assert closed.value.code == 1003
    assert page.facts.watching == 0


def test_a_browser_that_does_not_answer_is_let_go(page, monkeypatch):
    monkeypatch.setattr(live_module, "ANSWER_S", 0.2)
    with watch(page) as browser:
        browser.send_text(request())
        browser.receive_bytes()
        with pytest.raises(WebSocketDisconnect) as closed:
            browser.receive_bytes()
    assert closed.value.code == NO_ANSWER and page.facts.watching == 0


def test_watchers_are_bounded_and_told_so(page):
    with ExitStack() as stack:
        for _ in range(MAX_WATCHERS):
            browser = stack.enter_context(watch(page))
            browser.send_text(request())
            browser.receive_bytes()
        with watch(page) as late, pytest.raises(WebSocketDisconnect) as closed:
            late.receive_bytes()
        assert closed.value.code == TOO_MANY and "watching already" in closed.value.reason
    time.sleep(0.1)
    with watch(page) as browser:
        browser.send_text(request())
        browser.receive_bytes()


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"host": "evil.example"}, {"sec-fetch-site": "cross-site"}],
)
def test_other_sites_cannot_watch(page, headers):
    with pytest.raises(WebSocketDisconnect), watch(page, **headers):
        pass


def test_a_watcher_needs_a_session(make_page):
    page = make_page(TOKEN)
    with pytest.raises(WebSocketDisconnect), watch(page):
        pass
    page.client.post("/login", data={"token": TOKEN}, headers=ORIGIN)
    with watch(page) as browser:
        browser.send_text(request())
        assert browser.receive_bytes()


def test_the_fake_is_a_control():
    """So that these tests tell something about the real one."""
    for name in (name for name in vars(Control) if not name.startswith("_")):
        assert hasattr(FakeControl(), name), name
