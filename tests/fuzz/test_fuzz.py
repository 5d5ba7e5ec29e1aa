"""Mutated inputs: no traceback, no hang, and no gigabytes. A few hundred of them here, 10,000 in the night."""

from __future__ import annotations

import logging
import time
import urllib.error
import urllib.request
from pathlib import Path

import fuzzing
import pytest
from page_helpers import TOKEN, FakeControl

from kanoclip.runtime.ops.fleet.keys import make_keys, read_signing_key, read_trusted_keys
from kanoclip.runtime.service.page import PageOptions, open_page
from kanoclip.runtime.sinks.events.mqtt import MqttSink
from kanoclip.runtime.sinks.events.mqtt_config import MqttConfig

SEED = 24
A_FEW = 40
MOST_S = 5.0
MOST_BYTES = 3 << 28
"""Beside what the process holds before, which is 0.2 GB in a run of this file alone: no more than 1 GB in all there."""


class Keys:
    def __init__(self, folder):
        make_keys(folder / "k.key", folder / "k.pub")
        self.signing, self.trusted = read_signing_key(folder / "k.key"), read_trusted_keys([folder / "k.pub"])


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, toy_bundle):
    folder = tmp_path_factory.mktemp("fuzz")
    return fuzzing.Seeds(folder, toy_bundle, Keys(folder))


@pytest.fixture(scope="module")
def page():
    with open_page(PageOptions.parse("127.0.0.1:0", token=TOKEN)) as page:
        page.start(FakeControl())
        yield page


@pytest.mark.parametrize("name", fuzzing.READERS)
def test_some_inputs(seeds, name):
    draw = fuzzing.draw_for(name, SEED)
    for _ in range(A_FEW):
        fuzzing.try_one(fuzzing.READERS[name][0], seeds, draw)


@pytest.mark.parametrize("name", fuzzing.SERVED)
def test_some_requests(page, caplog, name):
    served(page, caplog, name, A_FEW)


def served(page, caplog, name, count):
    draw = fuzzing.draw_for(name, SEED)
    port = page._socket.getsockname()[1]
    with caplog.at_level(logging.WARNING), fuzzing.serve_checks() as (_, checks):
        for number in range(count):
            fuzzing.SERVED[name][0](checks if number % 4 == 3 and name == "http" else port, draw)
        for alive in (checks, port):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{alive}/healthz", timeout=10) as answer:
                    assert answer.status == 200
            except urllib.error.HTTPError as error:
                assert error.code in (401, 404)
    assert not [one for one in caplog.records if one.exc_info or one.levelno >= logging.ERROR]
    assert not [one.getMessage() for one in caplog.records if "failed" in one.getMessage()]


def test_a_broker_that_answers_anything(caplog):
    broker_answers(3, caplog)


def broker_answers(count, caplog):
    broker = fuzzing.FalseBroker(fuzzing.draw_for("mqtt", SEED))
    sinks = []
    with caplog.at_level(logging.WARNING):
        for _ in range(count):
            before = broker.answered
            sink = MqttSink(MqttConfig.parse(f"mqtt://127.0.0.1:{broker.port}/line3"), lambda words: None)
            sinks.append(sink)
            deadline = time.monotonic() + 20
            while broker.answered == before and time.monotonic() < deadline:
                time.sleep(0.01)
            sink.close()
    broker.close()
    assert broker.answered >= count
    assert not [one for one in caplog.records if one.exc_info]


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", fuzzing.READERS)
def test_a_night_of_inputs(seeds, name):
    read, count = fuzzing.READERS[name]
    draw = fuzzing.draw_for(name, SEED + 1)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on, not that of the tests before
    held = memory("VmRSS")
    for number in range(count):
        state = draw.getstate()
        started = time.thread_time()
        try:
            fuzzing.try_one(read, seeds, draw)
        except Exception as error:
            raise AssertionError(f"{name} {number}: {type(error).__name__}: {error} (state {hash(state)})") from error
        took = time.thread_time() - started
        assert took < MOST_S, f"{name} {number} took {took:.1f} s"
    assert memory("VmHWM") - held < MOST_BYTES


def memory(name):
    """A line of the process's status, in bytes: VmRSS is what it holds, VmHWM the most that it has held."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", fuzzing.SERVED)
def test_a_night_of_requests(page, caplog, name):
    served(page, caplog, name, fuzzing.SERVED[name][1])


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_night_of_a_broker(caplog):
    broker_answers(100, caplog)
