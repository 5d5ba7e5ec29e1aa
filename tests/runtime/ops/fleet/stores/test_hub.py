"""Hugging Face's hub on the loopback: files with hashes, faults that leave nothing behind, and bundles."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import click.testing
import pytest
from loopback_hub import Hub

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.cli.bundle.command import command
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.push import push
from kanoclip.runtime.ops.fleet.stores.hub import HubLayout, check_repository, fetch
from kanoclip.runtime.ops.fleet.stores.store import open_store

huggingface_hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    made = Hub()
    made.repositories["plant/line3"] = {"kanoclip.safetensors": os.urandom(200_000), "kanoclip.json": b'{"schema": 1}'}
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield made
    made.close()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))


def refused(*given):
    with pytest.raises(FleetError) as caught:
        fetch(*given)
    message = str(caught.value)
    assert "\n" not in message and "hf_secret" not in message and len(message) < 250
    return message


@pytest.mark.parametrize("name", ["kanoclip.safetensors", "kanoclip.json"])
def test_a_file_comes_once_and_then_from_the_cache(hub, monkeypatch, name):
    path = fetch("plant/line3", name)
    assert path.read_bytes() == hub.repositories["plant/line3"][name]
    assert {where for _, where in hub.asked} == {f"/plant/line3/resolve/main/{name}"}, "nothing else is asked"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    hub.close()
    assert fetch("plant/line3", name) == path


@pytest.mark.parametrize(
    ("fault", "expected"),
    [("401", "no access: set HF_TOKEN"), ("404", "no such repository"), ("half", "transfer failed"), ("hash", "hash")],
)
def test_a_fault_is_one_line_and_leaves_nothing_in_the_cache(hub, tmp_path, monkeypatch, caplog, fault, expected):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the library's own tries
    hub.fault = fault
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    assert expected in refused("plant/line3", "kanoclip.safetensors")
    assert not caplog.records, "the library's own tries are not logged beside it"
    assert not [p for p in files(tmp_path / "cache") if "blobs" in p.parts or "snapshots" in p.parts]
    hub.fault = ""
    assert fetch("plant/line3", "kanoclip.safetensors").stat().st_size == 200_000


def test_what_is_not_there(hub, monkeypatch):
    assert "no such file" in refused("plant/line3", "other.safetensors")
    assert "is no repository" in refused("line3", "x")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "not in the cache" in refused("plant/line3", "kanoclip.json")
    for name in ("a/b/c", "../x", "a/..", "a b/c"):
        with pytest.raises(FleetError, match="OWNER/NAME"):
            check_repository(name)


def test_bundles_are_pushed_listed_and_pulled(hub, toy_bundle, tmp_path):
    store = open_store("hf://plant/bundles")
    assert isinstance(store, HubLayout) and store.shown == "hf://plant/bundles"
    bundle = Bundle.open(toy_bundle)
    pushed = push(bundle, store, "line3", None, lambda text, share: None)
    assert pushed.sent > 0 and store.tags() == sorted(["line3", pushed.address.replace(":", "-")])
    again = push(bundle, open_store("hf://plant/bundles"), "line4", None, lambda text, share: None)
    assert (again.sent, again.there) == (0, pushed.sent) and again.address == pushed.address
    image = json.loads(store.image("line4"))
    for layer in image["layers"]:
        assert len(b"".join(store.blob(layer["digest"]))) == layer["size"]
    target = tmp_path / "back.kanoclip"
    words = ["pull", "hf://plant/bundles:line3", "--unsigned", "--output", str(target)]
    done = click.testing.CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert Bundle.open(target).manifest == bundle.manifest
    with pytest.raises(FleetError, match="line9"):
        store.image("line9")
    hub.fault = "401"
    with pytest.raises(FleetError, match="hf://plant/bundles: no access: set HF_TOKEN"):
        push(bundle, open_store("hf://plant/bundles"), "line5", None, lambda text, share: None)


def test_no_telemetry_is_asked_for_before_the_import():
    script = (
        "import os; os.environ.pop('HF_HUB_DISABLE_TELEMETRY', None)\n"
        "from kanoclip.runtime.ops.fleet.stores.hub import open_library\n"
        "open_library()\n"
        "from huggingface_hub import constants\n"
        "assert constants.HF_HUB_DISABLE_TELEMETRY"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
