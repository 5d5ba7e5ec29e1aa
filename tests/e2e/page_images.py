"""Makes the images of docs/page.md: the shipped nano bundle on the hazelnuts of examples/, one every 0.4 s.

python tests/e2e/page_images.py docs/
"""

from __future__ import annotations

import io
import itertools
import os
import random
import shutil
import sys
import tempfile
import threading
from pathlib import Path

from conftest import FLAGS
from PIL import Image
from playwright.sync_api import sync_playwright
from test_page import TOKEN, serving, verdict

ROOT = Path(__file__).parents[2]
NUTS = ROOT / "examples/hazelnut_toy/test"
BAD_SHARE = 0.15


def deliver(folder, done):
    """Puts a nut after the other into a folder, as a line's camera would."""
    chance = random.Random(4)
    good, bad = sorted((NUTS / "good").iterdir()), sorted((NUTS / "colour").iterdir())
    for number in itertools.count():
        image = chance.choice(bad if chance.random() < BAD_SHARE else good)
        part = folder / f"part-{number:05d}{image.suffix}"
        shutil.copy(image, part.with_suffix(".part"))
        part.with_suffix(".part").rename(part)
        if done.wait(0.4):
            return


def save(page, path):
    """A screenshot; photographs as JPEG with its colours in full: as PNG they would be five times larger."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    more = {"quality": 86, "subsampling": 0} if path.suffix == ".jpg" else {}
    image.save(path, optimize=True, **more)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def teach(page, out):
    """Learns from the next frames: the first steps as an animation, and an anomaly that may be corrected meanwhile."""
    page.locator("#teach-frames").fill("20")
    page.locator("#teach-learn:enabled").wait_for()
    steps = [Image.open(io.BytesIO(page.screenshot())).convert("RGB")]
    page.locator("#teach-learn").click()
    for number in range(14):
        page.wait_for_timeout(400)
        steps.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
        if number == 8:
            save(page, out / "page-teach.jpg")
    small = [step.resize((step.width // 2, step.height // 2), Image.Resampling.LANCZOS) for step in steps]
    path = out / "page-teach.webp"
    small[0].save(path, save_all=True, append_images=small[1:], duration=500, loop=0, quality=60)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    # What is learned of six hazelnuts over and over is no image to show: docs/references.jpg has that of real frames.
    page.locator("#teach-cancel").wait_for(state="hidden")


def main(out):
    done = threading.Event()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        os.chdir(scratch)  # short names in the images
        belt = Path("line-3")
        belt.mkdir()
        threading.Thread(target=deliver, args=(belt, done), daemon=True).start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)

        def visit(url, width, height, scheme):
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-GB"
            )
            page = context.new_page()
            page.set_default_timeout(120_000)
            page.goto(url)
            return page

        settings = ("--pixel-threshold", "0.4", "--snapshots", "anomalies")
        bundle = ROOT / "runtime/bundle/shipped/nano.kanoclip"
        try:
            with serving(bundle, *settings, log=Path(scratch, "log"), sources=(f"watch://{belt}",)) as (url, _):
                page = visit(url, 1360, 850, "dark")
                page.wait_for_timeout(70_000)  # a minute of scores
                verdict(page, "anomaly")
                save(page, out / "page-dark.jpg")
                page.locator("#gallery button").nth(2).click()
                page.locator("#anomaly-regions tbody td").first.wait_for()
                page.wait_for_timeout(500)
                save(page, out / "page-gallery.jpg")
                page = visit(url, 1360, 850, "light")
                page.wait_for_timeout(5000)
                verdict(page, "normal")
                save(page, out / "page-light.jpg")
                page.get_by_role("button", name="Regions", exact=True).click()
                page.get_by_role("button", name="Add box").click()
                page.get_by_label("Ignore inside").check()
                page.get_by_role("button", name="Add box").click()
                page.wait_for_timeout(2000)
                save(page, out / "page-regions.jpg")
                page.get_by_role("button", name="Delete", exact=True).click()
                page.locator("#regions polygon").press("Enter")
                page.get_by_role("button", name="Delete", exact=True).click()
                page.get_by_role("button", name="Regions", exact=True).click()
                page.get_by_role("button", name="Search and export").click()
                for number in (0, 2, 3):
                    page.locator("#search-found input").nth(number).check()
                page.get_by_label("Kind of defect").fill("stain")
                page.get_by_role("button", name="Mark selected").click()
                page.wait_for_timeout(500)
                save(page, out / "page-search.jpg")
                page = visit(url, 390, 1250, "dark")
                page.wait_for_timeout(5000)
                verdict(page, "anomaly")
                save(page, out / "page-phone.jpg")
                teach(visit(url, 1360, 1250, "light"), out)
            with serving(bundle, log=Path(scratch, "log"), sources=(f"watch://{belt}",), token=TOKEN) as (url, _):
                page = visit(url, 800, 600, "light")
                page.get_by_label("Token").wait_for()
                save(page, out / "page-login.png")
        finally:
            done.set()
            browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
