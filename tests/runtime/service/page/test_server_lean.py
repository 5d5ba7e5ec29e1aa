"""Who does not serve a page pays nothing for it, and who lacks the server is told how to get it."""

from __future__ import annotations

import json
import subprocess
import sys


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_without_serve_no_web_server_is_imported():
    modules = "kanoclip.runtime.cli.run, kanoclip.runtime.service.page"
    loaded = set(run(f"import json, sys, {modules}; print(json.dumps(list(sys.modules)))"))
    assert "kanoclip.runtime.service.page.options" in loaded
    assert not loaded & {"starlette", "uvicorn", "websockets", "h11", "anyio", "kanoclip.runtime.service.page.server"}


def test_a_missing_web_server_is_told_with_its_remedy():
    for name in ("starlette", "uvicorn", "websockets"):
        code = (
            f"import json, sys; sys.modules[{name!r}] = None\n"
            "from kanoclip.runtime.service.page import PageOptions, open_page\n"
            "from kanoclip.runtime.errors import SettingsError\n"
            "try: open_page(PageOptions.parse('127.0.0.1:0'))\n"
            "except SettingsError as error: print(json.dumps(str(error)))"
        )
        said = run(code)
        assert name in said and "pip install 'kanoclip-edge[page]'" in said
