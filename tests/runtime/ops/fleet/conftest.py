"""Keys, and bundles in a store that is a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import silent
from kanoclip.runtime.ops.fleet.keys import make_keys, read_signing_key, read_trusted_keys
from kanoclip.runtime.ops.fleet.push import push
from kanoclip.runtime.ops.fleet.stores.store import open_store


class Keys:
    """A pair of keys that was read from its files."""

    def __init__(self, folder: Path, name: str):
        self.private, self.public = folder / f"{name}.key", folder / f"{name}.pub"
        make_keys(self.private, self.public)
        self.signing = read_signing_key(self.private)
        self.trusted = read_trusted_keys([self.public])


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"), "line")


@pytest.fixture(scope="session")
def other_keys(tmp_path_factory):
    return Keys(tmp_path_factory.mktemp("keys"), "other")


@pytest.fixture(scope="session")
def new_bundle(tmp_path_factory, make_toy_bundle):
    """Makes a toy bundle whose threshold, and so its address, is another for each number."""
    made = {}

    def make(number: int = 0) -> Bundle:
        if number not in made:
            folder = make_toy_bundle(tmp_path_factory.mktemp("fleet") / "toy.kanoclip", samples=2)
            path = folder / "manifest.json"
            value = json.loads(path.read_text())
            value["thresholds"]["image"] = 0.5 + number / 1000
            path.write_text(json.dumps(value, indent=2))
            made[number] = Bundle.open(folder)
        return made[number]

    return make


@pytest.fixture(scope="session")
def _pushed_once(tmp_path_factory, new_bundle, keys):
    folder = tmp_path_factory.mktemp("pushed") / "store"
    push(new_bundle(), open_store(str(folder)), "line3", keys.signing, silent)
    return folder


@pytest.fixture
def store_folder(tmp_path, _pushed_once):
    """A store of its own with the toy bundle, signed, under the tag line3."""
    shutil.copytree(_pushed_once, tmp_path / "store")
    return tmp_path / "store"
