"""Which runs are too short to find the fastest engine first."""

from __future__ import annotations

import pytest

from kanoclip.runtime.cli.run_options.inputs import Inputs, SourceOptions
from kanoclip.runtime.cli.run_options.secrets import Secret


def inputs(*specs, camera=None):
    given = [SourceOptions(url=Secret(literal=str(spec))) for spec in specs]
    return Inputs((*given, *([] if camera is None else [SourceOptions(camera=camera)])))


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        path = tmp_path / "parts" / str(number % 2) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "parts"


def test_images_are_counted_over_all_sources(folder):
    one = folder / "0" / "0.png"
    for specs, most, few in (
        ([one], 1, True),
        ([folder], 5, True),
        ([folder], 4, False),
        ([folder, one], 5, False),
        ([folder / "**" / "*.png"], 5, True),
        ([folder / "**" / "*.png"], 4, False),
        ([folder / "none"], 1, True),  # refused where it is opened
    ):
        assert inputs(*specs).few(most) is few, specs


def test_what_has_no_end_is_never_few(folder, tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    for spec in ("test://", "rtsp://127.0.0.1/x", f"watch://{folder}", tmp_path / "clip.mp4"):
        assert not inputs(spec).few(200), spec
    assert not inputs(camera="0").few(200)
