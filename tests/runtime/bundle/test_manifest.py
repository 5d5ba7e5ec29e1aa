"""The manifest is somebody else's file: each field is checked and the one at fault is named, in one line."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kanoclip.runtime.bundle.manifest.checking import is_safe_path
from kanoclip.runtime.bundle.manifest.parts import EngineInfo, FileInfo, GraphWork, Thresholds
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.signature import (
    BATCH,
    DESCRIPTOR_CHANNELS,
    DescriptorInfo,
    TensorSpec,
    graph_signature,
)
from kanoclip.runtime.errors import BundleError

DIGEST = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def full(make_toy_bundle, tmp_path_factory):
    """A manifest in which every optional thing is present."""
    folder = make_toy_bundle(
        tmp_path_factory.mktemp("manifest"), classes=("näil", "wood screw"), dynamic=True, max_batch=4, grid=(4, 8)
    )
    manifest = read_manifest((folder / "manifest.json").read_text(encoding="utf-8"))
    return replace(
        manifest,
        files=manifest.files | {"engines/a.plan": FileInfo(DIGEST, 0)},
        engines=(
            EngineInfo("engines/a.plan", "tensorrt-rtx", "1.2.3", ("8.6", "8.9"), "linux-x86_64", "RTX 4070", 12),
        ),
        parity={"max": 1e-6, "passed": True, "rows": [1, None]},
        work=GraphWork(gemm_flops=7, weight_bytes=0, frame_bytes=3),
        model=replace(manifest.model, weights_sha256=DIGEST, checkpoint_sha256=DIGEST),
    )


@pytest.fixture
def value(full):
    return json.loads(full.to_json())


def refused(value, *words):
    with pytest.raises(BundleError) as caught:
        read_manifest(value if isinstance(value, str) else json.dumps(value))
    message = str(caught.value)
    assert message.splitlines() == [message] and message.isprintable(), repr(message)
    for word in words:
        assert word in message, message
    return message


def walk(value, path=()):
    """Every place in a JSON value, the root's parts first."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield (*path, key)
        yield from walk(item, (*path, key))


def parent(value, path):
    for key in path[:-1]:
        value = value[key]
    return value


def dotted(path):
    """The place as the message writes it."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif text in ("files", "provenance"):
            text += f"[{key!r}]"
        else:
            text += f".{key}" if text else key
    return text


def test_round_trip(full):
    assert read_manifest(full.to_json()) == full
    assert "näil" in full.to_json()
    assert full.dynamic_batch
    assert full.model.image_size == (32, 32)


def test_a_graph_that_resizes_takes_frames_of_any_size(value):
    assert read_manifest(json.dumps(value)).frame_size == (32, 32)
    value["preprocessing"]["resize"] = "stretch in the graph"
    value["inputs"][0]["shape"] = ["batch", 480, 640, 3]
    manifest = read_manifest(json.dumps(value))
    assert manifest.frame_size == (480, 640) and manifest.model.image_size == (32, 32)
    assert read_manifest(manifest.to_json()) == manifest
    for shape in (["batch", 480, 640], ["batch", "batch", 640, 3], ["batch", 480, 640, 4]):
        value["inputs"][0]["shape"] = shape
        refused(value, "inputs")
    value["inputs"] = []
    refused(value, "inputs")


def test_a_bundle_of_before_is_read_without_a_count_of_its_work(value):
    del value["work"]
    assert read_manifest(json.dumps(value)).work is None


@given(
    st.tuples(st.integers(1, 64), st.integers(1, 64)),
    st.integers(1, DESCRIPTOR_CHANNELS),
    st.sampled_from([1, 3, BATCH]),
    st.integers(1, 3),
)
def test_any_descriptor_round_trips_beside_the_other_outputs(full, grid, channels, batch, classes):
    info = DescriptorInfo(grid, channels, DIGEST)
    inputs, outputs = graph_signature((32, 32), classes, batch, (32, 32), info)
    plain_inputs, plain_outputs = graph_signature((32, 32), classes, batch, (32, 32))
    spec = TensorSpec("descriptor", "float32", (batch, grid[0] * grid[1], channels))
    assert (inputs, outputs) == (plain_inputs, (*plain_outputs, spec))
    for descriptor, listed in ((info, outputs), (None, plain_outputs)):
        manifest = replace(
            full,
            classes=tuple(map(str, range(classes))),
            max_batch=4 if batch == BATCH else batch,
            inputs=inputs,
            outputs=listed,
            descriptor=descriptor,
        )
        assert read_manifest(manifest.to_json()) == manifest
        assert ("descriptor" in json.loads(manifest.to_json())) is (descriptor is not None)
    with pytest.raises(BundleError, match="'outputs'"):
        read_manifest(replace(manifest, descriptor=info).to_json())
    with pytest.raises(BundleError, match="'outputs'"):
        read_manifest(replace(manifest, outputs=outputs).to_json())


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("grid", [4], "'descriptor.grid' is not [rows, columns]"),
        ("grid", [4, 4, 2], "'descriptor.grid' is not [rows, columns]"),
        ("grid", [0, 8], "'descriptor.grid[0]' is not an integer of at least 1"),
        ("grid", [4, -8], "'descriptor.grid[1]' is not an integer of at least 1"),
        ("grid", [4, 8.0], "'descriptor.grid[1]' is not an integer of at least 1"),
        ("channels", 0, "'descriptor.channels' is not an integer of at least 1"),
        ("channels", DESCRIPTOR_CHANNELS + 1, "'descriptor.channels' is not an integer of at most"),
        ("sha256", "a" * 63, "'descriptor.sha256' is not a sha256 digest"),
    ],
)  # fmt: skip
def test_fields_of_a_descriptor_are_checked(value, name, wrong, words):
    value["descriptor"][name] = wrong
    refused(value, words)


def test_a_fixed_batch_round_trips(toy_bundle):
    text = (toy_bundle / "manifest.json").read_text(encoding="utf-8")
    manifest = read_manifest(text)
    assert manifest.to_json() == text
    assert not manifest.dynamic_batch
    assert manifest.parity is None and manifest.model.weights_sha256 is None


def test_each_missing_field_is_named(value):
    checked = 0
    for path in walk(value):
        if path in (("work",), ("descriptor",)) or (path[0] in ("parity", "provenance") and len(path) > 1):
            continue  # bundles of earlier versions have neither
        if not isinstance(path[-1], str) or (path[:1] == ("files",) and len(path) == 2):
            continue
        broken = copy.deepcopy(value)
        del parent(broken, path)[path[-1]]
        if path == ("schema",):
            refused(broken, "schema")
        else:
            refused(broken, f"no field '{dotted(path)}'", "export the bundle again")
        checked += 1
    assert checked > 45


def test_each_unknown_field_is_named(value):
    places = [(), *(path for path in walk(value) if isinstance(parent(value, path)[path[-1]], dict))]
    free = [("parity",), ("provenance",), ("files",)]
    checked = 0
    for path in places:
        if path[:1] in free and len(path) == 1:
            continue
        broken = copy.deepcopy(value)
        parent(broken, (*path, ""))["extra"] = 1
        refused(broken, f"unknown field '{dotted((*path, 'extra'))}'", "upgrade kanoclip-edge")
        checked += 1
    assert checked == 14


@pytest.mark.parametrize("wrong", [None, True, -1, 1.5, "", [], {}, [[]], {"a": 1}, "a\nb", "\ud800"], ids=repr)
def test_each_wrongly_typed_field_is_named(value, wrong):
    """Every place takes each of these values in turn; it is refused unless it is of the kind that stood there."""
    allowed = {
        ("parity",): (dict, type(None)),
        ("model", "weights_sha256"): (type(None),),
        ("model", "checkpoint_sha256"): (type(None),),
        ("work",): (type(None),),
        ("engines",): ([],),
        ("engines", 0, "compute_capabilities"): ([],),
        ("engines", 0, "device"): (None,),
        ("engines", 0, "cuda_major"): (None,),
    }
    checked = 0
    for path in walk(value):
        if path[0] == "parity" and len(path) > 1:
            continue
        if any(wrong == kind or (isinstance(kind, type) and isinstance(wrong, kind)) for kind in allowed.get(path, ())):
            continue
        if isinstance(wrong, bool) and isinstance(parent(value, path)[path[-1]], bool):
            continue
        if (path, wrong) in ((("provenance",), {}),):
            continue
        broken = copy.deepcopy(value)
        parent(broken, path)[path[-1]] = wrong
        message = refused(broken)
        assert str(path[0]) in message or (path[0] == "files" and "model.onnx" in message), (path, message)
        checked += 1
    assert checked > 60


@pytest.mark.parametrize("schema", [0, 2, 999, "1", True, 1.0, None, [], {"a": 1}], ids=repr)
def test_unknown_schemas(value, schema):
    """Any but the integer 1, and before anything else is looked at."""
    refused({"schema": schema}, "schema", "upgrade kanoclip-edge")
    value["schema"] = schema
    refused(value, "schema")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", '"x"', "\ufeff{}", "{} {}", "[" * 100_000, "1" * 5000, '{"schema": NaN}', "\x00"],
    ids=lambda text: repr(text[:9]),
)
def test_what_is_no_json_object(text):
    refused(text, "manifest.json is not")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_json_lacks(full, constant):
    """Python reads them, nothing else does."""
    refused(full.to_json().replace("1e-06", constant), "not JSON", constant)


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_numbers_that_no_float_holds(full, number):
    refused(full.to_json().replace("1e-06", number), "not JSON", number)


@pytest.mark.parametrize("time", ["2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123+00:00"])
def test_times(value, time):
    value["created"] = time
    assert read_manifest(json.dumps(value)).created == time


@pytest.mark.parametrize(
    "time",
    ["yesterday", "2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04:05+02:00", "2026-13-02T03:04:05+00:00"],
)
def test_times_that_are_none_or_not_in_utc(value, time):
    value["created"] = time
    refused(value, "'created'", "UTC")


@pytest.mark.parametrize("name", ["image", "pixel"])
@pytest.mark.parametrize("number", [-0.01, 1.01, 2, "0.5", True, None], ids=repr)
def test_thresholds_are_shares(value, name, number):
    value["thresholds"][name] = number
    refused(value, f"'thresholds.{name}'", "from 0 to 1")


def test_thresholds_may_be_whole_numbers(value):
    value["thresholds"] |= {"image": 0, "pixel": 1, "min_area": 0}
    assert read_manifest(json.dumps(value)).thresholds == Thresholds(0.0, 1.0, 0, "made up for tests")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../model.onnx",
        "a/../../b",
        "a/..",
        "..",
        ".",
        "",
        "./a",
        "a//b",
        "a/",
        "C:/x",
        "a\\b",
        "..\\b",
        "a:stream",
        "a\0b",
        "a\nb",
        "a\ud800",
    ],
)
def test_unsafe_paths(value, name):
    assert not is_safe_path(name)
    value["files"][name] = {"sha256": DIGEST, "size": 1}
    refused(value, repr(name), "do not use it")


@pytest.mark.parametrize("name", ["a", "a/b.plan", "..a", "a..b/c", ".hidden", "größe"])
def test_safe_paths(value, name):
    assert is_safe_path(name)
    value["files"][name] = {"sha256": DIGEST, "size": 1}
    assert name in read_manifest(json.dumps(value)).files


@pytest.mark.parametrize("digest", ["", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST + "\n", "g" * 64])
def test_digests(value, digest):
    value["files"]["model.onnx"]["sha256"] = digest
    refused(value, "files['model.onnx'].sha256")


@pytest.mark.parametrize("name", ["weights_sha256", "checkpoint_sha256"])
def test_digests_of_what_it_was_made_from(value, name):
    value["model"][name] = "a" * 63
    refused(value, f"'model.{name}'", "sha256 digest")
    value["model"][name] = None
    assert getattr(read_manifest(json.dumps(value)).model, name) is None


@pytest.mark.parametrize(
    ("path", "new", "words"),
    [
        (("classes",), [], ["classes"]),
        (("classes",), ["a", "a"], ["classes", "different"]),
        (("classes",), ["one"], ["inputs", "1 classes"]),
        (("max_batch",), 0, ["max_batch"]),
        (("opset",), 0, ["opset"]),
        (("precision",), "int4", ["precision", "fp32, fp16, bf16"]),
        (("model", "image_size"), [32], ["model.image_size"]),
        (("model", "image_size"), [32, 64], ["inputs", "32x64"]),
        (("model", "image_size"), [32, 0], ["model.image_size[1]"]),
        (("model", "prompts"), "other", ["model.prompts"]),
        (("model", "global_token"), "x", ["model.global_token"]),
        (("engines", 0, "file"), "other.plan", ["other.plan", "does not list"]),
        (("engines", 0, "flavour"), "x", ["engines[0].flavour"]),
        (("engines", 0, "compatibility"), "x", ["engines[0].compatibility"]),
        (("engines", 0, "cuda_major"), 0, ["engines[0].cuda_major"]),
        (("files",), {}, ["model.onnx", "does not list"]),
        (("preprocessing", "resize"), "crop", ["crop", "does not know", "upgrade"]),
        (("preprocessing", "interpolation"), "cubic", ["cubic", "does not know"]),
        (("inputs",), [], ["inputs"]),
        (("inputs", 0, "name"), "picture", ["inputs"]),
        (("inputs", 0, "dtype"), "float32", ["inputs"]),
        (("inputs", 0, "shape"), [4, 32, 32, 3], ["inputs"]),
        (("inputs", 0, "shape"), [], ["inputs"]),
        (("inputs", 0, "shape"), ["n", 32, 32, 3], ["inputs[0].shape[0]"]),
        (("inputs", 1, "shape"), [4], ["inputs"]),
        (("outputs", 0, "shape"), ["batch", 32, 33], ["outputs"]),
        (("outputs", 1, "dtype"), "float16", ["outputs"]),
        (("outputs", 2, "shape"), ["batch", 32, 4], ["outputs", "descriptors of 32 cells and 3 channels"]),
        (("outputs", 2, "shape"), ["batch", 31, 3], ["outputs", "descriptors of 32 cells and 3 channels"]),
        (("outputs", 2, "dtype"), "float16", ["outputs", "descriptors of"]),
        (("outputs", 2, "name"), "descriptors", ["outputs", "descriptors of"]),
        (("descriptor", "grid"), [8, 8], ["outputs", "descriptors of 64 cells and 3 channels"]),
        (("descriptor", "channels"), 4, ["outputs", "descriptors of 32 cells and 4 channels"]),
        (("descriptor",), None, ["outputs", "2 classes at 32x32 without descriptors"]),
    ],
    ids=str,
)  # fmt: skip
def test_fields_at_odds_with_each_other(value, path, new, words):
    parent(value, path)[path[-1]] = new
    refused(value, *words)


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "\x1b[31m"])
def test_strange_names_of_fields_stay_on_one_line(value, name):
    value[name] = 1
    refused(value, "unknown field", repr(name)[1:-1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_taken_or_refused_cleanly(value):
    refused(json.dumps(value))
    if isinstance(value, dict):
        refused(json.dumps(value | {"schema": 1}))


@given(st.text())
def test_any_text_is_taken_or_refused_cleanly(text):
    refused(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_is_taken_or_refused_cleanly(full, data):
    """One place of a good manifest holds anything: read back to the same thing, or one BundleError."""
    value = json.loads(full.to_json())
    path = data.draw(st.sampled_from(sorted(walk(value), key=repr)))
    parent(value, path)[path[-1]] = data.draw(JSON)
    try:
        manifest = read_manifest(json.dumps(value))
    except BundleError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert read_manifest(manifest.to_json()) == manifest


@pytest.fixture
def calibrated(full):
    return replace(full, class_thresholds={"wood screw": Thresholds(0.75, 0.25, 9, "measured", DIGEST)})


def test_thresholds_of_a_class_and_of_the_others(calibrated):
    assert read_manifest(calibrated.to_json()) == calibrated
    assert calibrated.thresholds_of("wood screw") == Thresholds(0.75, 0.25, 9, "measured", DIGEST)
    assert calibrated.thresholds_of("näil") is calibrated.thresholds


def test_what_came_later_is_left_out_where_it_says_nothing(full):
    """So that a bundle that was never calibrated can be read by a version from before."""
    plain = replace(full, class_thresholds={}, work=None, descriptor=None, outputs=full.outputs[:2])
    value = json.loads(plain.to_json())
    assert not {"class_thresholds", "work", "descriptor"} & set(value) and "roi" not in value["thresholds"]
    assert read_manifest(json.dumps(value)) == plain


def test_thresholds_of_a_class_that_is_not_in_the_bundle(calibrated):
    value = json.loads(calibrated.to_json())
    value["class_thresholds"]["nut"] = value["class_thresholds"]["wood screw"]
    refused(value, "'class_thresholds'", "the bundle's own classes")


@pytest.mark.parametrize(("name", "wrong"), [("image", 2), ("roi", "abc"), ("roi", 3), ("pixle", 0.5)])
def test_fields_of_a_class_s_thresholds_are_checked(calibrated, name, wrong):
    value = json.loads(calibrated.to_json())
    value["class_thresholds"]["wood screw"][name] = wrong
    refused(value, f"class_thresholds['wood screw'].{name}")
