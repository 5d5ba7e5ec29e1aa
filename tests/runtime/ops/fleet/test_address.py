"""One bundle, one address, however its manifest is laid out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kanoclip.runtime.errors import BundleError, FleetError
from kanoclip.runtime.ops.fleet.address import content_address
from kanoclip.runtime.ops.fleet.reference import Reference, check_tag

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), VALUES, max_size=5), st.integers(0, 4), st.booleans())
def test_layout_does_not_matter(value, indent, escaped):
    plain = json.dumps(value).encode()
    try:
        other = json.dumps(dict(reversed(value.items())), indent=indent, ensure_ascii=escaped).encode()
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can hold
        other = plain
    assert content_address(plain) == content_address(other)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), VALUES, max_size=5), st.text(), st.integers())
def test_any_change_of_a_value_is_another_address(value, key, number):
    changed = value | {key: number}
    same = json.dumps(changed, sort_keys=True) == json.dumps(value, sort_keys=True)
    assert (content_address(json.dumps(value).encode()) == content_address(json.dumps(changed).encode())) is same


def test_the_form_is_the_documented_one():
    import hashlib

    expected = hashlib.sha256(b'{"a":[1,0.5],"b":"\\u00e4"}').hexdigest()
    assert content_address('{ "b": "ä",\n "a": [1, 5e-1] }'.encode()) == f"sha256:{expected}"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_has_no_address(content):
    with pytest.raises(BundleError, match=r"manifest\.json is not"):
        content_address(content)


A = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "url", "tag", "address"),
    [
        ("oci://host:5000/plant/kanoclip:line3", "oci://host:5000/plant/kanoclip", "line3", None),
        ("oci://host:5000/kanoclip", "oci://host:5000/kanoclip", "latest", None),
        (f"oci://host/kanoclip@{A}", "oci://host/kanoclip", None, A),
        ("http://host:8080", "http://host:8080", "latest", None),
        ("http://host:8080/", "http://host:8080/", "latest", None),
        ("http://host:8080/a:b", "http://host:8080/a", "b", None),
        ("s3://bucket", "s3://bucket", "latest", None),
        ("s3://bucket/:line3", "s3://bucket/", "line3", None),
        ("s3://bucket/a/b:line3", "s3://bucket/a/b", "line3", None),
        ("file:///srv/store:line3", "file:///srv/store", "line3", None),
        ("/srv/store:line3", "/srv/store", "line3", None),
        ("./store", "./store", "latest", None),
        (f"/srv/store@{A}", "/srv/store", None, A),
        ("sftp://user:word@host/srv/a:line3", "sftp://user:word@host/srv/a", "line3", None),
    ],
)
def test_references(text, url, tag, address):
    assert Reference.parse(text) == Reference(url, tag, address)


@pytest.mark.parametrize(
    "text", ["/srv/a:", "/srv/a:-x", "/srv/a:a b", "/srv/a@sha256:12", "/srv/a@sha256:", "/x:" + "a" * 129]
)
def test_references_that_are_none(text):
    with pytest.raises(FleetError, match="is no"):
        Reference.parse(text)


def test_a_tag_cannot_pose_as_an_address():
    with pytest.raises(FleetError, match="content address"):
        check_tag("sha256-" + "0a" * 32)
