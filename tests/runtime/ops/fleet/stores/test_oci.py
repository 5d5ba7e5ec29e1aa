"""Image manifests and indexes: what a store says may be anything, and other tools' entries stay."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME
from kanoclip.runtime.errors import FleetError
from kanoclip.runtime.ops.fleet.stores.blobs import sha256
from kanoclip.runtime.ops.fleet.stores.oci import EMPTY, read_image, read_index, with_tag, write_image

ADDRESS = "sha256:" + "a" * 64
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def bundle(toy_bundle):
    text = (toy_bundle / MANIFEST_NAME).read_bytes()
    return read_manifest(text.decode()), text


def read_again(value):
    return read_image(json.dumps(value).encode())


@pytest.mark.parametrize("envelope", [None, b"signed"])
def test_round_trip(bundle, envelope):
    manifest, text = bundle
    content = write_image(manifest, text, ADDRESS, envelope)
    image = read_image(content)
    assert (image.manifest, image.address) == (sha256(text), ADDRESS)
    assert (image.name, image.created) == (manifest.name, manifest.created)
    assert image.envelope == (None if envelope is None else sha256(envelope))
    assert image.size == len(text) + sum(info.size for info in manifest.files.values())
    layers = json.loads(content)["layers"]
    assert [layer["annotations"]["org.opencontainers.image.title"] for layer in layers] == [
        MANIFEST_NAME,
        *sorted(manifest.files),
    ]
    assert json.loads(content)["config"]["size"] == len(EMPTY if envelope is None else envelope)


@given(st.data())
def test_any_value_anywhere_is_read_or_refused_in_one_line(bundle, data):
    value = json.loads(write_image(*bundle, ADDRESS, b"signed"))
    place, key = data.draw(
        st.sampled_from(
            [(value, key) for key in value if key != "artifactType"]
            + [(value["config"], key) for key in value["config"]]
            + [(layer, key) for layer in value["layers"] for key in layer]
            + [(value["annotations"], key) for key in value["annotations"]]
        )
    )
    place[key] = data.draw(JSON)
    try:
        image = read_again(value)
    except FleetError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(one, str) for one in (image.manifest, image.address, image.name, image.created))


@pytest.mark.parametrize("size", ["1e999", "-1e999", "NaN"])
def test_sizes_that_no_integer_holds(bundle, size):
    value = json.loads(write_image(*bundle, ADDRESS, None))
    value["layers"][0]["size"] = "here"
    with pytest.raises(FleetError, match="damaged"):
        read_image(json.dumps(value).replace('"here"', size).encode())


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\u2028", 7, None])
def test_names_that_would_disturb_a_list_are_refused(bundle, name):
    value = json.loads(write_image(*bundle, ADDRESS, None))
    value["annotations"]["org.opencontainers.image.title"] = name
    with pytest.raises(FleetError, match="a name or time is none"):
        read_again(value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b"<html>"])
def test_what_is_no_json_object(content):
    for read in (read_image, read_index):
        with pytest.raises(FleetError, match="is no JSON object"):
            read(content)
    with pytest.raises(FleetError, match="is no JSON object"):
        with_tag(content, "latest", b"{}")


def test_another_image_is_told_as_one():
    with pytest.raises(FleetError, match="no KAnoCLIP bundle, but another image"):
        read_again({"schemaVersion": 2, "artifactType": "application/vnd.docker"})


def test_an_index_keeps_other_tools_entries_and_moves_a_tag():
    first = with_tag(None, "latest", b"one")
    second = with_tag(with_tag(first, "v2", b"two"), "latest", b"two")
    assert read_index(first) == {"latest": sha256(b"one")}
    assert read_index(second) == {"latest": sha256(b"two"), "v2": sha256(b"two")}
    foreign = [
        {"digest": sha256(b"x")},
        {"annotations": None},
        {"annotations": "words"},
        {"annotations": []},
        "junk",
        None,
    ]
    mixed = json.loads(second)
    mixed["manifests"] = [*foreign, *mixed["manifests"]]
    again = with_tag(json.dumps(mixed).encode(), "v3", b"three")
    assert json.loads(again)["manifests"][: len(foreign)] == foreign
    assert set(read_index(again)) == {"latest", "v2", "v3"}


@given(JSON)
def test_any_list_of_an_index_is_read_and_added_to(entries):
    index = json.dumps({"manifests": entries}).encode()
    assert isinstance(read_index(index), dict)
    assert read_index(with_tag(index, "latest", b"one"))["latest"] == sha256(b"one")


@pytest.mark.parametrize("size", [-1, 1.5, "7", True, None, [], 1 << 60, float("inf")])
def test_sizes_that_are_none(bundle, size):
    manifest, text = bundle
    value = json.loads(write_image(manifest, text, ADDRESS, None))
    value["layers"][-1]["size"] = size
    with pytest.raises(FleetError, match="a size is none"):
        read_image(json.dumps(value).encode())
