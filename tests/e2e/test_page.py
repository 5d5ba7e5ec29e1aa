"""The installed `kanoclip-run --serve`, driven in a real Chromium as a line engineer would."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from kanoclip.runtime.detect.settings.settings_file import read_settings
from kanoclip.runtime.sinks.draw.digits import apart
from kanoclip.runtime.sinks.draw.palette import coloured, cover
from kanoclip.train.data.registry import open_dataset

pytestmark = [pytest.mark.programs("chromium"), pytest.mark.timeout(240)]

RUN = Path(sys.executable).parent / "kanoclip-run"
CHECKS = Path(__file__).with_name("page_checks.js").read_text(encoding="utf-8")
TOKEN = "a-token-that-is-long-enough"
PATTERN = "test://?width=320&height=180&fps=20&defect=0.3&seed=3"
DESKTOP, PHONE, SMALLEST = (1440, 900), (390, 844), (320, 640)
PATIENCE_MS = 40_000


@contextmanager
def serving(bundle, *arguments, log, token=None, sources=(PATTERN,)):
    """`kanoclip-run --serve` on a free port; gives its address and its process."""
    command = [str(RUN), "--bundle", str(bundle), "--backend", "onnxruntime", "--serve", "127.0.0.1:0", "--no-window"]
    for source in sources:
        command += ["--source", source]
    environment = {name: value for name, value in os.environ.items() if name != "KANOCLIP_TOKEN"}
    if token is not None:
        environment["KANOCLIP_TOKEN"] = token
    with log.open("w") as lines:
        process = subprocess.Popen([*command, *arguments], stdout=lines, stderr=lines, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"page: (http\S+)", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield found[1], process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def bundle(make_toy_bundle, tmp_path_factory):
    """Two classes; the brightest spot is the score of the first, the darkest that of the second."""
    return make_toy_bundle(tmp_path_factory.mktemp("page") / "toy.kanoclip", classes=("bright", "dark"), size=64)


@pytest.fixture
def visit(chromium):
    """Opens an address; whatever goes wrong in the page, or leaves this machine, fails the test."""
    contexts, problems = [], []

    def visiting(url, size=DESKTOP, scheme="dark", **options):
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce", **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on(
            "request", lambda request: None if request.url.startswith((url, "blob:")) else problems.append(request.url)
        )
        page.goto(url)
        return page

    visiting.problems = problems
    yield visiting
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def open_url(bundle, tmp_path_factory):
    """A page without a token."""
    with serving(bundle, log=tmp_path_factory.mktemp("open") / "log") as (url, _):
        yield url


@pytest.fixture(scope="module")
def snapshots(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def guarded_url(bundle, tmp_path_factory, snapshots):
    """Two cameras, a token, snapshots, and an untrained bundle."""
    log = tmp_path_factory.mktemp("guarded") / "log"
    sources = (PATTERN, PATTERN.replace("seed=3", "seed=4"))
    with serving(bundle, "--snapshots", str(snapshots), log=log, token=TOKEN, sources=sources) as (url, _):
        yield url
    assert TOKEN not in log.read_text()


@pytest.fixture(scope="module")
def axe():
    """axe-core's script, out of the wheel: nothing is fetched."""
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


def serious(page, axe):
    """What axe-core calls serious or critical; run by the debugger, past the page's own policy."""
    found = page.evaluate(
        "async (script) => { if (!window.axe) (0, eval)(script); const { violations, passes } = await axe.run();"
        " if (passes.length < 20) throw new Error(`only ${passes.length} rules were looked at`);"
        " return violations.filter(({ impact }) => ['serious', 'critical'].includes(impact))"
        " .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 90)).slice(0, 3)}`); }",
        axe,
    )
    return list(found)


def health(url):
    with urllib.request.urlopen(f"{url}readyz", timeout=10) as answer:
        return json.load(answer)


def verdict(page, word):
    page.locator(f"#verdict[data-verdict={word}]").wait_for()


def set_threshold(page, value):
    field = page.get_by_label("Threshold", exact=True)
    field.fill(str(value))
    field.press("Tab")


def shown(page):
    return float(page.get_by_role("slider", name=re.compile("Threshold")).get_attribute("aria-valuenow"))


def settles(value, wanted):
    """Waits until a callable gives what is wanted."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while (found := value()) != wanted:
        assert time.monotonic() < deadline, f"{found!r} is not {wanted!r}"
        time.sleep(0.05)


def stays(value, seconds=1.5):
    """Waits until a callable has given the same for so long."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    found, since = value(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < deadline, f"{found!r} does not stay"
        time.sleep(0.05)
        if (now := value()) != found:
            found, since = now, time.monotonic()


def test_the_image_and_the_verdict_are_live(open_url, visit):
    page = visit(open_url)
    set_threshold(page, 1)
    verdict(page, "normal")
    before = page.locator("#about").inner_text()
    page.wait_for_timeout(500)
    assert page.locator("#about").inner_text() != before  # another frame
    drawn = page.evaluate(
        "() => [...document.querySelectorAll('#stage canvas')].map((canvas) => {"
        " const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
        " return [canvas.width, data.some((value) => value > 0 && value < 255)]; })"
    )
    assert drawn[0] == [320, True] and drawn[1][1]
    set_threshold(page, 0.01)
    verdict(page, "anomaly")
    settles(page.title, "Anomaly · KAnoCLIP edge")
    assert page.locator("#announce").inner_text() in ("Normal", "Anomaly")


def test_the_threshold_is_dragged_and_moved_by_keys(open_url, visit):
    page = visit(open_url)
    set_threshold(page, 0.5)
    slider = page.get_by_role("slider", name=re.compile("Threshold"))
    settles(lambda: shown(page), 0.5)
    box = page.locator(".grip").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 20, steps=4)
    page.mouse.move(x - 150, y - 40, steps=4)  # the line can be followed anywhere
    page.mouse.up()
    dragged = shown(page)
    assert 0.6 < dragged < 0.9
    another = visit(open_url)  # it is the stream's now, not this browser's
    settles(lambda: shown(another), dragged)
    slider.focus()
    for key, change in (("ArrowUp", 0.005), ("ArrowDown", -0.005), ("PageDown", -0.05), ("Shift+ArrowUp", 0.001)):
        before = shown(page)
        page.keyboard.press(key)
        assert shown(page) == pytest.approx(before + change, abs=1e-6), key
    page.keyboard.press("End")
    settles(lambda: shown(another), 1.0)
    page.keyboard.press("Home")
    settles(lambda: shown(another), 0.0)
    assert slider.get_attribute("aria-valuetext") == "0.000"


def test_a_finger_drags_it_too(open_url, visit):
    page = visit(open_url, PHONE, has_touch=True, is_mobile=True)
    set_threshold(page, 0.5)
    page.locator("#about:not(:empty)").wait_for()  # the image has its place now
    page.evaluate("() => document.getElementById('chart').scrollIntoView({ block: 'center' })")
    box = page.locator(".grip").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    session.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in range(1, 6):
        session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y + 8 * step}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert 0.1 < shown(page) < 0.4
    assert page.locator(".grip").bounding_box()["y"] == pytest.approx(box["y"] + 40, abs=3)  # the page did not scroll


def test_it_can_be_undone_and_saved(open_url, visit):
    page = visit(open_url)
    set_threshold(page, 0.5)
    page.get_by_role("button", name="Save thresholds").click()
    page.locator("#saved[data-kind=saved]").wait_for()
    assert page.locator("#saved").inner_text().startswith("Saved in ")
    set_threshold(page, 0.7)
    undo = page.get_by_role("button", name="Undo")
    undo.wait_for()
    assert "not saved" in page.locator("#saved").inner_text()
    undo.click()
    undo.wait_for(state="hidden")
    settles(lambda: shown(page), 0.5)


def test_another_class_is_looked_for(open_url, visit):
    page = visit(open_url)
    box = page.get_by_label("Looks for defects of")
    box.select_option("dark")
    settles(lambda: health(open_url)["class"], "dark")
    another = visit(open_url)
    settles(lambda: another.get_by_label("Looks for defects of").input_value(), "dark")
    box.select_option("bright")
    settles(lambda: health(open_url)["class"], "bright")


def test_it_is_paused_and_resumed(open_url, visit):
    page = visit(open_url)
    page.get_by_role("button", name="Pause").click()
    verdict(page, "paused")
    frames = health_frames(open_url)
    time.sleep(0.5)
    assert health_frames(open_url) - frames <= 1
    page.get_by_role("button", name="Resume").click()
    settles(lambda: page.locator("#verdict").get_attribute("data-verdict") in ("normal", "anomaly"), True)


def health_frames(url):
    try:
        return health(url)["frames"]
    except urllib.error.HTTPError as error:  # paused is not ready
        return json.load(error)["frames"]


def test_heat_opacity_and_outlines_are_the_browser_s(open_url, visit):
    page = visit(open_url)
    set_threshold(page, 0.01)
    page.get_by_label("Pixel threshold", exact=True).fill("0.3")
    verdict(page, "anomaly")
    page.get_by_role("button", name="Pause").click()
    verdict(page, "paused")
    page.wait_for_timeout(300)

    def ink():
        return page.evaluate(
            "() => { const canvas = document.querySelector('#stage .overlay');"
            " const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;"
            " let sum = 0; for (let i = 3; i < data.length; i += 4) sum += data[i]; return sum / data.length * 4; }"
        )

    full = ink()
    page.get_by_label("Opacity").first.fill("30")
    assert 0 < ink() < 0.7 * full
    page.get_by_label("Heat map").first.uncheck()
    lines = ink()
    page.get_by_label("Outlines").uncheck()
    assert ink() == 0 < lines
    page.get_by_role("button", name="Resume").click()
    page.get_by_label("Pixel threshold", exact=True).fill("0.5")


def test_the_modules_of_the_browser(open_url, visit):
    """Palette, digits and outlines, as the browser computes them."""
    page = visit(open_url)
    chance = random.Random(1)
    thresholds = [0.5, 0.1255, *(chance.random() for _ in range(300))]
    pairs = [
        [threshold + chance.choice((0, 1)) * chance.gauss(0, 10.0 ** -chance.randint(1, 7)), threshold]
        for threshold in thresholds
    ]
    told = page.evaluate(
        """async (pairs) => {
        const { place, cover, table } = await import("/static/js/drawing/palette.js");
        const { apart } = await import("/static/js/drawing/digits.js");
        const { segments } = await import("/static/js/drawing/contour.js");
        const map = new Uint8Array(64);
        for (const at of [27, 28, 35, 36]) map[at] = 200;  // 2 x 2 cells in the middle of 8 x 8
        const lines = segments(map, 8, 8, 100);
        const edge = new Uint8Array(16).fill(255);
        return {
          places: [place(0, 0.4), place(0.4, 0.4), place(1, 0.4)],
          covers: [...Array(256).keys()].map((level) => cover(level / 255, 0.4)),
          colours: [...Array(256).keys()].map((level) => [...table(0.4)].slice(4 * level, 4 * level + 3)),
          digits: pairs.map(([score, threshold]) => apart(score, threshold, 3)),
          xs: [Math.min(...lines.filter((_, i) => i % 2 === 0)), Math.max(...lines.filter((_, i) => i % 2 === 0))],
          closed: lines.length % 4, count: lines.length / 4,
          border: segments(edge, 4, 4, 100).length / 4, none: segments(map, 8, 8, 201).length,
        };
        }""",
        pairs,
    )
    # Files and page show the same, which two languages compute.
    assert told["places"] == [0, 0.5, 1]
    levels = np.arange(256) / 255
    assert told["covers"] == pytest.approx(cover(levels, 0.4).tolist())
    assert np.abs(np.array(told["colours"]) - coloured(levels, 0.4)[:, ::-1].astype(int)).max() <= 1
    assert [tuple(shown) for shown in told["digits"]] == [apart(*pair, 3) for pair in pairs]
    assert told["xs"] == [0.375, 0.625]  # half way between 0 and 200 lies half way between two cells' middles
    assert (told["closed"], told["count"], told["none"]) == (0, 8, 0) and told["border"] >= 16


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (SMALLEST, "dark")])
def test_contrast_names_and_targets(open_url, visit, size, scheme):
    page = visit(open_url, size, scheme)
    set_threshold(page, 0.01)
    verdict(page, "anomaly")
    page.locator("#gallery button").first.wait_for()
    page.locator("#stages tbody tr").first.wait_for()
    assert page.evaluate(CHECKS) == []
    for word in ("normal", "paused", "lost", "untrained", "wait"):
        page.evaluate("(word) => { document.getElementById('verdict').dataset.verdict = word; }", word)
        assert [text for text in page.evaluate(CHECKS) if "contrast" in text] == [], word
    page.evaluate("() => { document.getElementById('untrained').hidden = false; }")
    assert page.evaluate(CHECKS) == []
    page.locator("#gallery button").first.click()
    page.locator("#anomaly[open] #anomaly-facts dd").first.wait_for()
    assert page.evaluate(CHECKS) == []


def test_the_verdict_can_be_read_at_three_metres(open_url, visit):
    """Capitals of 15 mm, a 200th of the distance, on a 24-inch screen of 1920 x 1080 (0.277 mm a pixel)."""
    page = visit(open_url, (1920, 1080))
    set_threshold(page, 0.01)
    verdict(page, "anomaly")
    size = float(page.evaluate("() => parseFloat(getComputedStyle(document.getElementById('verdict-word')).fontSize)"))
    assert size * 0.7 * 0.277 >= 15


def test_everything_is_reached_by_the_tab_key(open_url, visit):
    page = visit(open_url)
    set_threshold(page, 0.5)
    page.get_by_role("slider", name=re.compile("Threshold")).wait_for()
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id"))
    assert {
        "heatmap",
        "outlines",
        "opacity",
        "fit",
        "threshold",
        "pause",
        "class",
        "threshold-number",
        "pixel",
        "save",
    } <= reached


def chromium_processes():
    """Those that descend from this process."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            names[int(folder.name)] = (folder / "cmdline").read_bytes()
            parents[int(folder.name)] = int(fields[1])
        except OSError:
            continue

    def ours(pid):
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [pid for pid, line in names.items() if b"chromium" in line and ours(pid)]


def frames_per_second(url, seconds):
    first, started = health(url)["frames"], time.monotonic()
    time.sleep(seconds)
    return (health(url)["frames"] - first) / (time.monotonic() - started)


def test_a_browser_that_stops_reading_does_not_slow_the_stream(bundle, tmp_path, visit):
    with serving(bundle, log=tmp_path / "log") as (url, _):
        page = visit(url)
        page.locator("#about:not(:empty)").wait_for()
        stopped = chromium_processes()
        assert stopped
        for _ in range(3):  # a busy machine gets another chance
            alone = frames_per_second(url, 3)
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            try:
                time.sleep(1)
                beside = frames_per_second(url, 3)
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
            if beside >= 0.95 * alone:
                break
        assert beside >= 0.95 * alone
        page.locator("#link[data-link=live]").wait_for()  # and it goes on where the stream is now
        settles(lambda: page.locator("#verdict").get_attribute("data-verdict") in ("normal", "anomaly"), True)
    page.locator("#verdict[data-verdict=lost]").wait_for()  # what was shown last does not look like the state now
    assert page.locator("#verdict-score").inner_text() == "\u2013"
    page.close()  # it goes on asking for the stream until then
    visit.problems.clear()  # the browser complains of the server that is gone


def test_without_the_token_there_is_no_page(guarded_url, visit, snapshots):
    page = visit(guarded_url)
    assert page.url.endswith("/login") and page.evaluate(CHECKS) == []
    token = page.get_by_label("Token")
    token.fill("not-the-token-at-all")
    token.press("Enter")
    page.get_by_role("alert").wait_for()
    assert "not the token" in page.get_by_role("alert").inner_text() and page.evaluate(CHECKS) == []
    assert page.evaluate("() => fetch('/api/gallery').then((answer) => answer.status)") == 401
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.locator("#verdict").wait_for()
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and TOKEN not in cookie["value"]
    assert page.evaluate("() => document.cookie") == "" and TOKEN not in page.url

    # Both cameras
    tabs = page.locator("#sources button")
    tabs.nth(1).wait_for()
    assert tabs.count() == 2
    tabs.nth(1).click()
    page.locator("#sources button[aria-pressed=true]").nth(0).wait_for()
    assert tabs.nth(1).get_attribute("aria-pressed") == "true"
    settles(lambda: page.locator("#source-table tbody tr").count(), 2)

    # The gallery is the folder that --snapshots fills
    set_threshold(page, 0.01)
    page.locator("#gallery button").nth(1).wait_for()
    set_threshold(page, 1)
    stays(lambda: page.locator("#gallery li").first.get_attribute("data-key"))  # no newer one comes between two
    assert str(snapshots) in page.locator("#gallery-note").inner_text()
    page.locator("#gallery button").nth(1).click()
    dialog = page.get_by_role("dialog")
    page.locator("#anomaly[open] #anomaly-facts dd").first.wait_for()
    assert float(page.locator("#anomaly-facts dd").first.inner_text()) > 0.01
    settles(lambda: page.evaluate("() => document.querySelector('#anomaly-stage .image').width"), 320)
    first = page.locator("#anomaly-record").get_attribute("href")
    page.get_by_role("button", name="Newer").click()
    settles(lambda: page.locator("#anomaly-record").get_attribute("href") != first, True)
    page.keyboard.press("ArrowRight")
    settles(lambda: page.locator("#anomaly-record").get_attribute("href"), first)
    with page.expect_download() as download:
        page.get_by_role("link", name="Record").click()
    record = json.loads(Path(download.value.path()).read_text())
    assert record["is_anomalous"] and record["size"] == [320, 180]
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")

    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    page.goto(guarded_url)
    assert page.url.endswith("/login")
    visit.problems[:] = [text for text in visit.problems if "401" not in text]  # the browser tells of each refusal


def test_an_address_of_the_network_needs_a_token(bundle):
    environment = {name: value for name, value in os.environ.items() if name != "KANOCLIP_TOKEN"}
    command = [str(RUN), "--bundle", str(bundle), "--source", PATTERN, "--serve", "0.0.0.0:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode != 0 and "needs a token" in done.stderr and "openssl rand -hex 32" in done.stderr


def test_a_region_is_drawn_moved_by_keys_saved_and_deleted(bundle, tmp_path, visit):
    line = tmp_path / "line3.toml"
    line.write_text("[decision]\nmin_area = 4  # pixels\n")
    with serving(bundle, "--config", str(line), log=tmp_path / "log") as (url, _):
        page = visit(url)
        page.locator("#about:not(:empty)").wait_for()
        page.get_by_role("button", name="Regions", exact=True).click()
        box = page.locator("#regions").bounding_box()
        for x, y in ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8)):
            page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.get_by_role("button", name="Close polygon").click()
        region = lambda: page.evaluate("() => fetch('/api/region').then((answer) => answer.json())")  # noqa: E731
        settles(lambda: [len(region()[kind]) for kind in ("keep", "ignore")], [1, 0])
        assert np.abs(np.array(region()["keep"][0]) - [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8]]).max() < 0.01

        page.get_by_label("Ignore inside").check()
        page.get_by_role("button", name="Add box").click()
        settles(lambda: [len(region()[kind]) for kind in ("keep", "ignore")], [1, 1])
        page.get_by_role("button", name=re.compile("Corner 1:")).focus()
        page.keyboard.press("ArrowRight")
        settles(lambda: region()["ignore"][0][0], [0.41, 0.4])

        corner = page.get_by_role("button", name=re.compile("Corner 3:")).bounding_box()
        page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.65, box["y"] + box["height"] * 0.7, steps=3)
        page.mouse.up()
        settles(lambda: np.abs(np.array(region()["ignore"][0][2]) - [0.65, 0.7]).max() < 0.02, True)

        page.get_by_role("button", name="Save region").click()
        page.locator("#regions-note[data-kind=saved]").wait_for()
        settings = read_settings(line)
        assert len(settings.decision("bright").roi.ignore) == 1 and settings.decision("dark").roi is None
        assert "# pixels" in line.read_text()

        page.get_by_role("button", name="Delete", exact=True).click()
        settles(lambda: len(region()["ignore"]), 0)
        assert health(url)["status"] == "ready"
        page.close()
    with serving(bundle, "--config", str(line), log=tmp_path / "log") as (url, _):
        page = visit(url)
        page.locator("#about:not(:empty)").wait_for()
        settles(lambda: len(page.evaluate("() => fetch('/api/region').then((a) => a.json())")["ignore"]), 1)
        page.close()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        (DESKTOP, "dark"),
        (PHONE, "light"),
        pytest.param(DESKTOP, "light", marks=pytest.mark.nightly),
        pytest.param(PHONE, "dark", marks=pytest.mark.nightly),
    ],
)
def test_axe_has_no_serious_finding(open_url, visit, axe, size, scheme):
    """In every state that an engineer sees: watching, drawing regions, an anomaly opened, the search."""
    page = visit(open_url, size, scheme, bypass_csp=True)
    set_threshold(page, 0.01)
    verdict(page, "anomaly")
    page.locator("#gallery button").first.wait_for()
    page.locator("#shifts-table tbody tr").first.wait_for()
    page.get_by_role("button", name="Regions", exact=True).click()
    page.get_by_role("button", name="Add box").click()
    page.get_by_role("button", name=re.compile("Corner 1:")).wait_for()
    assert serious(page, axe) == [] and page.evaluate(CHECKS) == []
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Regions", exact=True).click()
    page.locator("#gallery button").first.click()
    page.locator("#anomaly[open] #anomaly-facts dd").first.wait_for()
    assert serious(page, axe) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Search and export").click()
    page.locator("#search-found label").first.wait_for()
    assert serious(page, axe) == [] and page.evaluate(CHECKS) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Sources").click()
    page.locator("#sources-list input").wait_for()
    assert serious(page, axe) == [] and page.evaluate(CHECKS) == []


def test_a_search_s_selection_goes_out_as_a_dataset(guarded_url, visit, tmp_path):
    page = visit(guarded_url)
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    page.locator("#verdict").wait_for()
    set_threshold(page, 0.01)
    page.locator("#gallery button").nth(3).wait_for()
    set_threshold(page, 1)
    stays(lambda: page.locator("#gallery li").first.get_attribute("data-key"))
    page.get_by_role("button", name="Search and export").click()
    boxes = page.locator("#search-found input")
    boxes.nth(3).wait_for()
    boxes.nth(0).check()
    boxes.nth(1).check()
    page.get_by_label("Kind of defect").fill("<b>../scratch")
    page.get_by_role("button", name="Mark selected").click()
    boxes.nth(2).check()
    page.get_by_label("Selected are").select_option("good")
    page.get_by_role("button", name="Mark selected").click()
    assert page.locator("#search-found .as:visible").all_inner_texts() == ["<b>../scratch", "<b>../scratch", "good"]
    with page.expect_download() as download:
        page.get_by_role("button", name="Export dataset").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path)
    (category,) = open_dataset("mvtec", tmp_path).categories
    assert sorted(sample.defect for sample in category.samples) == ["b-scratch", "b-scratch", "good"]
    page.locator("#search-high").fill("0.001")
    page.get_by_role("button", name="Search", exact=True).click()
    settles(lambda: page.locator("#search-note").inner_text(), "nothing found")


def test_counts_by_shift_outlive_a_restart(bundle, tmp_path, visit):
    before = 0
    for _ in range(2):
        with serving(bundle, "--counters", str(tmp_path / "counts"), "--shifts", "0:00", log=tmp_path / "log") as (
            url,
            _,
        ):
            page = visit(url)
            row = page.locator("#shifts-table tbody tr").first
            row.wait_for()
            page.locator("#shifts-bars li").first.wait_for()
            frames = int(row.locator("td").nth(1).inner_text().replace(",", ""))
            page.close()
        saved = sum(hour["frames"] for hour in json.loads((tmp_path / "counts/counters.json").read_text())["hours"])
        assert saved > before and saved >= frames >= before
        before = saved


def test_a_source_is_added_called_otherwise_and_removed(bundle, tmp_path, visit):
    lines = tmp_path / "frames.jsonl"
    with serving(bundle, "--jsonl", str(lines), log=tmp_path / "log") as (url, _):
        page = visit(url)
        page.locator("#about:not(:empty)").wait_for()
        assert page.locator("#sources button").count() == 0
        page.get_by_role("button", name="Sources").click()
        assert page.evaluate(CHECKS) == []
        page.get_by_label("Camera or address").fill("gst://videotestsrc")
        page.get_by_role("button", name="Add", exact=True).click()
        settles(lambda: "may not be added here" in page.locator("#sources-note").inner_text(), True)
        page.get_by_label("Camera or address").fill(PATTERN.replace("seed=3", "seed=4"))
        page.get_by_label("Name in lines and events").fill("<b>right</b>")
        page.get_by_role("button", name="Add", exact=True).click()
        page.get_by_label("Name on this page of <b>right</b>").wait_for()
        field = page.get_by_label(f"Name on this page of {PATTERN}")
        long = f"left <i> {'without_a_break_' * 3}"
        field.fill(long)
        field.press("Tab")
        page.get_by_role("button", name="Close").click()
        tabs = page.locator("#sources button .name")
        settles(lambda: sorted(tabs.all_inner_texts()), ["<b>right</b>", long.strip()])
        page.set_viewport_size(dict(zip(("width", "height"), SMALLEST, strict=True)))
        assert page.evaluate(CHECKS) == []
        tabs.nth(1).click()
        settles(lambda: "of <b>right</b>" in page.locator("#about").inner_text(), True)
        page.get_by_role("button", name="Sources").click()
        page.get_by_role("button", name="Remove <b>right</b>").click()
        settles(lambda: page.locator("#sources-list li").count(), 1)
        page.get_by_role("button", name="Close").click()
        settles(lambda: "of test://" in page.locator("#about").inner_text(), True)
        assert health(url)["status"] == "ready"
        page.close()
        visit.problems[:] = [text for text in visit.problems if "400" not in text]  # of the refusal
    streams = {json.loads(line).get("stream") for line in lines.read_text().splitlines()}
    assert streams == {None, "<b>right</b>"}  # what the first one writes stays as it was
