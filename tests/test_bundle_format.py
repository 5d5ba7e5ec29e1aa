"""docs/bundle-format.md, held to what is written and shipped: bundles are read by its tables and by its program."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import references

from kanoclip.runtime.bundle.bundle import Bundle, shipped_bundle
from kanoclip.runtime.bundle.manifest import parts, schema, signature, tiles
from kanoclip.runtime.detect.reference.stored import files, history
from kanoclip.runtime.detect.reference.stored.history import put
from kanoclip.runtime.ops.fleet.address import content_address

PAGE = (Path(__file__).parents[1] / "docs" / "bundle-format.md").read_text(encoding="utf-8")
SHIPPED = sorted(shipped_bundle().parent.glob("*.kanoclip"))
CLASSES = {
    "The manifest": schema.Manifest,
    "model": parts.ModelInfo,
    "tensor": signature.TensorSpec,
    "preprocessing": parts.Preprocessing,
    "thresholds": parts.Thresholds,
    "file": parts.FileInfo,
    "engine": parts.EngineInfo,
    "work": parts.GraphWork,
    "descriptor": signature.DescriptorInfo,
    "memory": signature.MemoryInfo,
    "reference": parts.ReferenceInfo,
    "tiles": tiles.TileGrid,
}
KINDS = {
    "text": lambda value: isinstance(value, str) and value.isprintable() and value != "",
    "integer": lambda value: type(value) is int and value >= 0,
    "share": lambda value: type(value) in (int, float) and 0 <= value <= 1,
    "flag": lambda value: isinstance(value, bool),
    "digest": lambda value: re.fullmatch("[0-9a-f]{64}", value) is not None,
    "time": lambda value: datetime.fromisoformat(value.replace("Z", "+00:00")).utcoffset() == timedelta(0),
    "object": lambda value: isinstance(value, dict),
    "axis": lambda value: value in ("batch", "rows") or KINDS["integer"](value),
}
DTYPES = {"F16": "<f2", "F32": "<f4", "I32": "<i4"}


def tables(text):
    """{heading: {key: [other cells]}} of the page's tables; `heading/first cell` where a heading has a second one."""
    found, heading = {}, ""
    for block in re.findall(r"^#+ .*$|(?:^\|.*\n)+", text, re.M):
        if block.startswith("#"):
            heading = block.lstrip("# ")
            continue
        head, _, *rows = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        found[heading if head[0] == "key" else f"{heading}/{head[0]}"] = {row[0].strip("`"): row[1:] for row in rows}
    return found


TABLES = tables(PAGE)


def fits(value, kind):
    """Whether a value is of a type as the page words it."""
    if kind.endswith(" or null"):
        return value is None or fits(value, kind.removesuffix(" or null"))
    if kind.startswith("list of "):
        return isinstance(value, list) and all(fits(one, kind.removeprefix("list of ")) for one in value)
    return KINDS[kind](value)


def check(value, heading):
    """What a table of the page does not say of an object, or says wrongly."""
    table = TABLES[heading]
    for key in table.keys() | value.keys():
        assert key in table, f"{heading}: the page does not know {key}"
        kind = table[key][0]
        if key not in value:
            assert kind.startswith("optional "), f"{heading}: {key} is missing"
        else:
            assert fits(value[key], kind.removeprefix("optional ")), f"{heading}: {key} is no {kind}"


def check_all(manifest):
    """The manifest and every object in it."""
    check(manifest, "The manifest")
    for heading in ("model", "preprocessing", "thresholds", "work", "descriptor", "memory", "tiles"):
        if heading in manifest:
            check(manifest[heading], heading)
    for key, heading in (("inputs", "tensor"), ("outputs", "tensor"), ("engines", "engine")):
        for one in manifest[key]:
            check(one, heading)
    for key, heading in (("files", "file"), ("class_thresholds", "thresholds"), ("references", "reference")):
        for one in manifest.get(key, {}).values():
            check(one, heading)


@pytest.fixture(scope="module")
def reader():
    """The names of the page's own program, which only the standard library may be needed for."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    assert len(code.splitlines()) <= 50
    names = {}
    exec(compile(code, "docs/bundle-format.md", "exec"), names)
    return names


def learned(tmp_path, make_toy_bundle):
    """A bundle of three classes that learned one of them twice."""
    names = ("cup", "bolt", "nut")
    bundle = Bundle.open(
        make_toy_bundle(tmp_path / "toy.kanoclip", classes=names, grid=(4, 4), memory_rows=64, samples=1)
    )
    digest = bundle.manifest.descriptor.sha256
    for seed in (0, 1):
        memory = references.memory(digest=digest, seed=seed, grid=(4, 4), channels=3)
        put(bundle, None, "bolt", memory, replace(bundle.manifest.thresholds, image=0.5 + seed / 10, roi="ab" * 32))
        bundle = Bundle.open(bundle.root)
    return bundle


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_bundles_are_as_the_page_says(reader, folder):
    manifest = reader["read_bundle"](folder)
    check_all(manifest)
    assert reader["address_of"](manifest) == content_address((folder / "manifest.json").read_bytes())


def test_a_learned_bundle_is_as_the_page_says(reader, tmp_path, make_toy_bundle):
    bundle = learned(tmp_path, make_toy_bundle)
    manifest = reader["read_bundle"](bundle.root)
    check_all(manifest)
    assert [key.partition(" until ")[0] for key in manifest["provenance"] if "until" in key] == [
        "thresholds of bolt"
    ] * 2
    info = manifest["references"]["bolt"]
    assert len(info["history"]) == 1
    texts, tensors = reader["read_memory"](bundle.root / info["file"])
    assert texts.keys() == TABLES["A memory's file/text"].keys()
    memory = history.memory_of(bundle, "bolt")
    table = TABLES["A memory's file/tensor"]
    sizes = {"m": len(memory.rows), "D": memory.rows.shape[1], "n": len(memory.names), "8": 8}
    assert tensors.keys() == table.keys()
    for name, (dtype, shape, content) in tensors.items():
        assert dtype == table[name][0] and shape == [sizes[one] for one in table[name][1].split(", ")], name
        values = np.frombuffer(content, DTYPES[dtype]).reshape(shape)
        wanted = memory.fusion.numbers() if name == "fusion" else vars(memory)[name]
        assert np.array_equal(values, wanted), name
    assert json.loads(texts["names"]) == list(memory.names) and json.loads(texts["before"])["image"] == 0.5
    assert info["file"] == files.name_of((bundle.root / info["file"]).read_bytes())


def test_the_page_names_every_field_and_no_other():
    for heading, kind in CLASSES.items():
        assert set(TABLES[heading]) == {one.name for one in fields(kind)}, heading


def test_the_program_refuses_what_the_page_says(reader, tmp_path, make_toy_bundle):
    root = make_toy_bundle(tmp_path / "toy.kanoclip")
    (root / "model.onnx").write_bytes((root / "model.onnx").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.onnx is damaged"):
        reader["read_bundle"](root)
    manifest = json.loads((root / "manifest.json").read_text())
    manifest["files"]["../outside"] = manifest["files"]["model.onnx"]
    (root / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "outside").write_bytes(b"")
    manifest["files"] = {"../outside": {"sha256": "0" * 64, "size": 0}}
    (root / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="leaves the bundle"):
        reader["read_bundle"](root)
