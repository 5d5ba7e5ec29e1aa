"""Temperatures and memory as Linux tells them, on boards that have them and machines that do not."""

from __future__ import annotations

import psutil

from kanoclip.runtime.system.hardware import Temperature, Thermometers, available_bytes, resident_bytes


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_jetson_and_a_pc(tmp_path):
    for number, (name, value) in enumerate(
        [("cpu-thermal", "51250"), ("gpu-thermal", "62500"), ("cv0-thermal", "-256000"), ("tj-thermal", "")]
    ):
        write(tmp_path / f"thermal/thermal_zone{number}/type", f"{name}\n")
        write(tmp_path / f"thermal/thermal_zone{number}/temp", f"{value}\n")
    write(tmp_path / "hwmon/hwmon3/name", "coretemp\n")
    write(tmp_path / "hwmon/hwmon3/temp1_input", "48000\n")
    write(tmp_path / "hwmon/hwmon3/temp1_label", "Package id 0\n")
    write(tmp_path / "hwmon/hwmon3/temp2_input", "255000\n")  # nothing is connected there
    write(tmp_path / "hwmon/hwmon4/name", "nvme\n")
    write(tmp_path / "hwmon/hwmon4/temp1_input", "39850\n")
    assert Thermometers(tmp_path).read() == [
        Temperature("gpu-thermal", 62.5),
        Temperature("cpu-thermal", 51.25),
        Temperature("coretemp Package id 0", 48.0),
        Temperature("nvme", 39.85),
    ]


def test_a_machine_without_sensors(tmp_path):
    assert Thermometers(tmp_path).read() == []


def test_a_machine_that_does_not_tell_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    assert resident_bytes() is None and available_bytes() is None


def test_sensors_of_one_name_are_one_row(tmp_path):
    for number, value in enumerate(("40000", "45000", "42000")):
        write(tmp_path / f"thermal/thermal_zone{number}/type", "acpitz\n")
        write(tmp_path / f"thermal/thermal_zone{number}/temp", value)
    thermometers = Thermometers(tmp_path)
    assert thermometers.read() == [Temperature("acpitz", 45.0)]
    write(tmp_path / "thermal/thermal_zone2/temp", "47000")
    assert thermometers.read() == [Temperature("acpitz", 47.0)]
    (tmp_path / "thermal/thermal_zone2/temp").unlink()
    assert thermometers.read() == [Temperature("acpitz", 45.0)]


def test_this_process_has_memory():
    assert 1 << 20 < resident_bytes() < 1 << 40
    assert available_bytes() > 1 << 20
