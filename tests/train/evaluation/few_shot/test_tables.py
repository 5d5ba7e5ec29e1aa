"""The tables: one line a category with deviations, published figures beside and never mixed in."""

from __future__ import annotations

import io

from rich.console import Console

from kanoclip.train.evaluation.few_shot.draws import Draw, FewShot
from kanoclip.train.evaluation.few_shot.references import Protocol
from kanoclip.train.evaluation.few_shot.tables import few_shot_markdown, lines, print_few_shot, published, title
from kanoclip.train.evaluation.results import METRICS, CategoryResult


def draw(auroc, pixel=float("nan"), frames=4):
    metrics = dict.fromkeys(METRICS, 0.5) | {"image_auroc": auroc, "pixel_auroc": pixel}
    return Draw(CategoryResult(metrics, "object", 5, 5, 0, ()), 0.8, 0.04, 0.7, (1, 1), 0, frames)


def found(share=None):
    return FewShot(Protocol(4, 2, share), {"a": (draw(0.9), draw(0.8)), "b": (draw(1.0, 0.6), draw(1.0, 0.7))})


def test_each_category_and_the_mean():
    rows = lines(found())
    assert [row[0] for row in rows] == ["a", "b", "mean"]
    assert rows[0][1] == "85.0 ± 5.0" and rows[0][3] == "-" and rows[0][5] == "80.0 ± 0.0"
    assert rows[2][1] == "92.5 ± 2.5" and rows[2][3] == "65.0 ± 5.0"
    assert len(lines(FewShot(Protocol(4, 2), {"a": (draw(0.9),)}))) == 1


def test_what_a_draw_was():
    assert title(found()).startswith("4 references, 2 draws, threshold for 5.0% false positives")
    assert title(found(0.1)).startswith("4 unlabelled frames, 10% of them anomalous, 2 draws")


def test_a_narrow_screen_cuts_no_deviation_off_and_too_few_images_are_named():
    console = Console(file=io.StringIO(), width=80)
    print_few_shot(console, FewShot(Protocol(4, 2), {"hazelnut_toy": (draw(0.9, frames=3), draw(0.8, frames=3))}), [])
    shown = console.file.getvalue()
    assert "…" not in shown and "85.0 ±" in shown and "5.0" in shown
    assert "hazelnut_toy: 3 frames a draw and not 4" in shown
    assert "a draw and not" not in few_shot_markdown(found(), [])


def test_published_rows_are_of_the_same_number_of_references():
    assert ("WinCLIP+ (CVPR 2023)", "93.1", "95.2") in published("mvtec", 1)
    assert published("mvtec", 4) == [] and published("btad", 1) == []


def test_markdown_and_terminal_say_that_published_rows_are_of_all_of_the_dataset():
    text = few_shot_markdown(found(), published("mvtec", 1))
    assert (
        "| a | 85.0 ± 5.0 |" in text
        and "Published, on all of the dataset" in text
        and "| WinCLIP+ (CVPR 2023) |" in text
    )
    assert "Published" not in few_shot_markdown(found(), [])
    console = Console(file=io.StringIO(), width=200)
    print_few_shot(console, found(), published("visa", 1))
    shown = console.file.getvalue()
    assert "NOT comparable" in shown and "83.8" in shown and "92.5 ± 2.5" in shown
