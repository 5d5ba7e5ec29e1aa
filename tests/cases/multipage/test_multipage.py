"""What is left out of a file with several pages is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from kanoclip.runtime.cli.main import invoke

HERE = Path(__file__).parent


@pytest.mark.parametrize(("name", "pages"), [("anim.webp", 2), ("three_pages_2_and_3_bad.tif", 3)])
def test_only_the_first_page(toy_bundle, capsys, name, pages):
    given = ["--bundle", str(toy_bundle), "--backend", "onnxruntime", "--no-window", "--source", str(HERE / name)]
    assert invoke("kanoclip-run", "run", given) == 0
    assert f"warning: {HERE / name}: only the first of its {pages} pages is scored" in capsys.readouterr().err
