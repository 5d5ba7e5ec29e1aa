"""Killed in the middle of any write: what was finished is there, and what was not is whole or not there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from references import memory

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.bundle.manifest.parts import Thresholds
from kanoclip.runtime.bundle.store import locked, store
from kanoclip.runtime.detect.reference.stored.history import memory_of, put
from kanoclip.runtime.detect.settings.saved_thresholds import write_settings
from kanoclip.runtime.detect.settings.toml_file import TomlFile
from kanoclip.runtime.ops.fleet.history import History, Installed
from kanoclip.runtime.ops.score.run_folder import RunFolder
from kanoclip.runtime.system.paths import replace_file

HERE = Path(__file__)
PATH = os.pathsep.join([str(HERE.parents[1] / "support"), *sys.path])


def at(number):
    return Thresholds(number / 1000, number / 1000, 0, f"write {number}")


class Settings:
    """A settings file, a table of it at a time."""

    def __init__(self, folder, make):
        self.path = folder / "line.toml"
        write_settings(self.path, {(("decision",), "threshold"): 0.0})

    def write(self, number):
        write_settings(self.path, {(("class", f"c{number % 50}"), "threshold"): number / 1000})
        write_settings(self.path, {(("decision",), "threshold"): number / 1000})

    def read(self):
        return round(TomlFile(self.path).value["decision"]["threshold"] * 1000)


class InPlace:
    """A bundle whose thresholds are set."""

    def __init__(self, folder, make):
        self.root = folder / "own.kanoclip"
        if not self.root.exists():
            make(self.root)
            self.write(0)

    def write(self, number):
        with locked(self.root):
            store(Bundle.open(self.root), None, None, at(number))

    def read(self):
        return round(Bundle.open(self.root).manifest.thresholds.image * 1000)


class Memory(InPlace):
    """A bundle that learns."""

    def __init__(self, folder, make):
        super().__init__(folder, lambda root: make(root, grid=(8, 8), memory_rows=64))

    def write(self, number):
        bundle = Bundle.open(self.root)
        digest = bundle.manifest.descriptor.sha256
        made = memory(3, rows=20 + number % 9, channels=3, seed=number, digest=digest)
        with locked(self.root):
            put(bundle, None, "object", made, at(number))

    def read(self):
        bundle = Bundle.open(self.root)
        assert len(memory_of(bundle, "object").rows) == 20 + super().read() % 9
        return super().read()


class Fleet:
    """What was installed."""

    def __init__(self, folder, make):
        self.path = folder / "fleet.json"
        if not self.path.exists():
            self.write(0)

    def write(self, number):
        address = f"sha256:{number:064x}"
        History.read(self.path).with_installed(Installed(address, "toy", "now", "here", None, None)).write(self.path)

    def read(self):
        return int(History.read(self.path).installed[-1].address[7:], 16)


class Cache:
    """What every cache entry is written by."""

    def __init__(self, folder, make):
        self.path = folder / "entry.json"
        if not self.path.exists():
            self.write(0)

    def write(self, number):
        replace_file(self.path, f"{number} ".encode() * 50_000)

    def read(self):
        (number,) = set(self.path.read_text().split())
        return int(number)


class Score:
    """A run's folder: its parts, slice by slice."""

    def __init__(self, folder, make):
        self.run = RunFolder(folder / "x.parquet")

    def write(self, number):
        with self.run.held():
            replace_file(self.run.root / "parts" / "0.parquet", f"{number} ".encode() * 20_000)

    def read(self):
        with self.run.held():
            (number,) = set((self.run.root / "parts" / "0.parquet").read_text().split())
        return int(number)


WRITERS = {kind.__name__: kind for kind in (Settings, InPlace, Memory, Fleet, Cache, Score)}
CODE = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("test_kill", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
writer = module.WRITERS[sys.argv[2]](Path(sys.argv[3]), None)
number = int(sys.argv[4])
while number < 999:
    number += 1
    writer.write(number)
    print(number, flush=True)
"""


def killed(kind, folder, make, times, draw):
    writer = WRITERS[kind](folder, make)
    done = 0
    for _ in range(times):
        given = [sys.executable, "-c", CODE, str(HERE), kind, str(folder), str(done)]
        environment = os.environ | {"PYTHONPATH": PATH}
        with subprocess.Popen(given, stdout=subprocess.PIPE, text=True, env=environment) as process:
            wanted = draw.randint(1, 6)
            for line in process.stdout:
                done = int(line)
                wanted -= 1
                if wanted == 0:
                    # A moment later: in the middle of the next one, wherever that is.
                    os.kill(process.pid, signal.SIGSTOP)
                    for _ in range(draw.randrange(200)):
                        os.kill(process.pid, signal.SIGCONT)
                        os.kill(process.pid, signal.SIGSTOP)
                    process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert writer.read() in (done, done + 1)
        writer.write(done := writer.read() + 1)  # nothing that is left behind is in its way
        assert writer.read() == done


@pytest.mark.parametrize("kind", WRITERS)
def test_killed_once(kind, tmp_path, make_toy_bundle):
    killed(kind, tmp_path, make_toy_bundle, 1, random.Random(24))


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", WRITERS)
def test_killed_twenty_times(kind, tmp_path, make_toy_bundle):
    killed(kind, tmp_path, make_toy_bundle, 20, random.Random(25))
