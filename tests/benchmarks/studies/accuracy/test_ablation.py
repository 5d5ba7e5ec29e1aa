import json

import pytest

from kanoclip.benchmarks.studies.accuracy import ablation
from kanoclip.benchmarks.studies.accuracy.ablation import FULL, PARTS, UNTRAINED, rows_of, table
from kanoclip.benchmarks.studies.accuracy.nano import spread
from kanoclip.runtime.errors import KanoclipError
from kanoclip.train.training.cli.command import command


def figures(value):
    row = {"image_auroc": value, "pixel_auroc": value / 2, "aupro": None}
    return {"nut": row, "mean": row}


def test_every_part_is_left_out_by_flags_that_training_has():
    known = {option for parameter in command.params for option in parameter.opts}
    for flags in PARTS.values():
        assert flags[0] in known


def test_a_row_that_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    learned, measured = [], []

    def learn(training, defects, flags, seed, target):
        learned.append((flags, seed))
        if flags == ("--no-vv",) and len(learned) < 4:
            raise KanoclipError("stopped")
        target.write_bytes(b"")

    def measure(flags, root):
        measured.append(flags)
        return figures(0.8)

    monkeypatch.setattr(ablation, "learn", learn)
    monkeypatch.setattr(ablation, "measure", measure)
    training, scratch = tmp_path / "out3", tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(KanoclipError, match="stopped"):
        rows_of(training, 3, tmp_path, tmp_path, scratch)
    before = len(measured)
    found = rows_of(training, 3, tmp_path, tmp_path, scratch)
    assert list(found) == [UNTRAINED, FULL, *PARTS]
    assert len(measured) == len(PARTS) + 2 and before == 4, "what was there was measured once"
    assert {seed for _, seed in learned} == {3} and len(learned) == len(PARTS) + 1
    assert json.loads((scratch / "out3-0.json").read_text()) == figures(0.8)


def test_the_table_has_mean_and_spread_over_trainings():
    rows = spread([{FULL: figures(0.8)}, {FULL: figures(0.6)}])
    assert "70.0 ± 10.0" in table(rows) and "35.0 ± 5.0" in table(rows) and "| - |" in table(rows)
