import csv
import io
import json
import math

import pytest
from rich.console import Console

from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.data.layouts.names import CLASS_NAMES
from kanoclip.train.evaluation.paper import ABLATION, paper_rows
from kanoclip.train.evaluation.results import METRICS, CategoryResult, Results
from kanoclip.train.evaluation.tables import as_json, comma_separated, markdown, percent, print_results, write_text

MODEL = {
    "kind": "bundle",
    "name": "x|y.kanoclip",
    "backbone": "nano",
    "weights": "openai",
    "precision": "fp16",
    "prompts": "learned",
    "image_size": [256, 256],
    "checkpoint_sha256": "0" * 64,
    "backend": "onnxruntime-cpu",
}


def row(value, **options):
    values = {"class_name": "object", "normal": 3, "anomalous": 4, "unmasked": 0, "skipped": ()}
    return CategoryResult(dict.fromkeys(METRICS, value), **{**values, **options})


@pytest.fixture
def results():
    unmasked = CategoryResult(
        {**dict.fromkeys(METRICS, math.nan), "image_auroc": 0.5, "image_ap": 0.25, "image_f1max": 1.0},
        "grid [x]",
        3,
        0,
        2,
        ("a.png: broken",),
    )
    return Results("mvtec", "root", MODEL, True, {"a|b": row(0.91234), "grid": unmasked}, 1.5)


def shown(results, paper=None, width=120):
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    print_results(console, results, paper)
    return console.file.getvalue()


def test_json_has_the_promised_form_and_no_nan(results):
    record = json.loads(as_json(results, None, {"numpy": "2"}), parse_constant=lambda name: pytest.fail(name))
    assert set(record["categories"]["a|b"]) == set(METRICS) == set(record["mean"])
    assert record["categories"]["grid"]["pixel_auroc"] is None
    assert record["mean"]["image_auroc"] == pytest.approx((0.91234 + 0.5) / 2)
    assert record["mean"]["aupro"] == 0.91234
    assert record["counts"]["grid"]["skipped"] == ["a.png: broken"]
    assert record["versions"] == {"numpy": "2"} and "paper" not in record


def test_terminal_shows_percent_dashes_and_what_to_know(results):
    text = shown(results)
    assert "91.2" in text and "50.0" in text
    line = next(line for line in text.splitlines() if "grid" in line)
    assert line.count(" - ") == 4
    assert "grid: 2 anomalous images without a mask" in text
    assert "grid: no anomalous image" in text
    assert "grid: 1 images could not be read, such as a.png: broken" in text
    assert "'grid [x]' for grid" in text, "brackets are no markup"


def test_it_fits_a_terminal_of_80_columns(results):
    table = [line for line in shown(results, width=80).splitlines() if line.startswith(("│", "┃"))]
    assert all("…" not in line for line in table)


def test_markdown_is_a_table_whose_bars_are_escaped(results):
    lines = markdown(results, None).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    assert table[2].startswith("| a\\|b | 91.2 |")
    assert {line.replace("\\|", "").count("|") for line in table} == {9}
    assert "\\" not in markdown(results, None).replace("\\|", ""), "no LaTeX"


def test_csv_is_read_back(results):
    rows = list(csv.DictReader(io.StringIO(comma_separated(results))))
    assert [line["category"] for line in rows] == ["a|b", "grid", "mean"]
    assert rows[1]["pixel_auroc"] == "" and float(rows[0]["aupro"]) == pytest.approx(0.91234)


@pytest.mark.parametrize(
    ("value", "text"), [(0.98765, "98.8"), (0.0, "0.0"), (1, "100.0"), (math.nan, "-"), (None, "-")]
)
def test_percent(value, text):
    assert percent(value) == text


def test_papers_figures(results):
    """Spot checks against tables 1 to 3."""
    ours = {row.method: row for row in paper_rows("visa")}
    assert list(ours) == ["CLIP", "CLIP-AC", "WinCLIP", "April-GAN", "AnomalyCLIP", "MVFA-AD", "KAnoCLIP"]
    assert (ours["KAnoCLIP"].image_auroc, ours["KAnoCLIP"].pixel_auroc) == (83.8, 97.7)
    assert paper_rows("covid19")[3].image_auroc == 15.5 and paper_rows("covid19")[3].pixel_auroc is None
    assert paper_rows("sdd")[0].pixel_auroc == 39 and paper_rows("dagm")[-1].pixel_auroc == 96.8
    assert paper_rows("folder") == ()
    for name in ("mvtec", "visa"):
        best = paper_rows(name)[-1]
        assert ABLATION[name][-1] == (best.image_auroc, best.pixel_auroc)


def test_comparison_says_whether_it_is_one(results):
    text = shown(results, paper_rows("mvtec"))
    assert "NOT comparable" in text and "93.1" in text and "this run" in text
    whole = Results("mvtec", "root", MODEL, True, dict.fromkeys(CLASS_NAMES["mvtec"], row(0.5)), 1.0)
    assert "NOT comparable" not in shown(whole, paper_rows("mvtec"))
    assert "no figures" in shown(Results("folder", "r", MODEL, True, {"a": row(0.5)}, 1.0), ())


@pytest.mark.parametrize(
    ("weights", "trained", "word"),
    [("seeded:0", False, "SEEDED"), ("openai", False, "UNTRAINED"), ("openai", True, None)],
)
def test_a_model_that_knows_nothing_is_called_that(results, weights, trained, word):
    text = shown(Results("mvtec", "root", {**MODEL, "weights": weights}, trained, {"a": row(0.5)}, 1.0))
    assert (word in text) if word else not ({"SEEDED", "UNTRAINED"} & set(text.split()))


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KanoclipError, match="choose another place"):
        write_text(tmp_path / "file" / "x.json", "{}")
    write_text(tmp_path / "new" / "x.json", "{}")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.json"]
