from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from kanoclip.benchmarks.studies.streams.run_overhead import make_images
from kanoclip.benchmarks.studies.training_speed import main, reading


@pytest.mark.timeout(240)
@pytest.mark.nightly
def test_reading_cache_and_epochs_are_measured(tmp_path):
    output = tmp_path / "result.json"
    arguments = ["--backbone", "random-tiny", "--epochs", "2", "--pictures", "8", "--workers", "0"]
    done = CliRunner().invoke(main, [*arguments, "--repeat", "1", "--output", str(output)])
    assert done.exit_code == 0, done.output
    found = json.loads(output.read_text())
    rates = found["reading_pictures_per_s"]["by_workers"]
    assert list(rates) == ["0"] and rates["0"]["median"] > 0.1
    assert found["cache"]["files"] == 23, "each of the example photographs"
    assert found["cache"]["from_memory"]["pictures_per_s"] > 1
    filling, later = found["training"]["cache"]
    assert filling["from_cache"] < 0.1 and later["from_cache"] == 1
    assert set(found["training"]) == {"cache", "no cache, 0 workers"}
    for epoch in (epoch for epochs in found["training"].values() for epoch in epochs):
        assert 0 < epoch["waited"] < 1 and epoch["pictures_per_s"] > 0
    assert found["first_epoch_over_later_ones"] == [pytest.approx(filling["seconds"] / later["seconds"])]


def test_the_loader_reads_every_image_at_model_size(tmp_path, monkeypatch):
    from kanoclip.train.training import images

    make_images(tmp_path, 8, distinct=2)
    read, original = [], images.read_image
    monkeypatch.setattr(images, "read_image", lambda path: read.append(path.name) or original(path))
    assert reading(tmp_path, 8, 0) > 0 and reading(tmp_path, 8, 1) > 0
    assert sorted(read) == [f"{index:05d}.jpg" for index in range(8)]
