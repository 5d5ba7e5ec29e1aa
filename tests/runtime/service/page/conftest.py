"""A stream that implements `Control`, frames, and the page's application over them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from page_helpers import FakeControl
from starlette.testclient import TestClient

from kanoclip.runtime.service.health import Health
from kanoclip.runtime.service.page import PageOptions
from kanoclip.runtime.service.page.app import make_app
from kanoclip.runtime.service.page.feed.facts import Facts
from kanoclip.runtime.service.page.feed.hub import Hub
from kanoclip.runtime.service.page.gallery import MemoryGallery


@pytest.fixture
def control():
    return FakeControl()


@pytest.fixture
def make_page(control):
    """Makes the application without a server: its client, and what lies behind it."""
    pool = ThreadPoolExecutor(1)

    def make(token=None, *, address="127.0.0.1:8080", base="http://127.0.0.1:8080", gallery=None, **more):
        options = PageOptions.parse(address, token=token, **more.pop("options", {}))
        memory = MemoryGallery()
        hub = Hub(memory if gallery is None else None)
        facts = Facts(control, hub)
        app = make_app(options, facts, gallery or memory, pool, **{"health": Health(), **more})
        client = TestClient(app, base_url=base, follow_redirects=False)
        return SimpleNamespace(app=app, client=client, hub=hub, facts=facts, memory=memory, base=base)

    yield make
    pool.shutdown()


@pytest.fixture
def ask():
    """Asks for a change as the page does."""

    def asking(page, path, values=None, **headers):
        proof = page.client.get("/api/session").json().get("proof", "")
        headers = {"origin": page.base, "x-kanoclip-proof": proof} | headers
        return page.client.post(path, json=values or {}, headers=headers)

    return asking
