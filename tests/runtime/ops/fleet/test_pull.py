"""What a store can do to a bundle, and that none of it gets through."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from kanoclip.runtime.bundle.bundle import Bundle
from kanoclip.runtime.engines import silent
from kanoclip.runtime.errors import BundleError, FleetError
from kanoclip.runtime.ops.fleet.address import content_address
from kanoclip.runtime.ops.fleet.pull import SIGNATURE_NAME, Offer, fetch, look
from kanoclip.runtime.ops.fleet.push import push
from kanoclip.runtime.ops.fleet.reference import Reference, address_tag
from kanoclip.runtime.ops.fleet.statement import Statement, now, sign
from kanoclip.runtime.ops.fleet.stores.blobs import BrokenOffError, sha256
from kanoclip.runtime.ops.fleet.stores.oci import EMPTY, write_image
from kanoclip.runtime.ops.fleet.stores.store import open_store


def pull(folder, keys, into, tag="line3", **options):
    trusted = keys.trusted if keys is not None else ()
    offer = look(open_store(str(folder)), Reference.parse(f"{folder}:{tag}"), trusted, **options)
    fetch(offer, into, silent)
    return Bundle.open(into)


def blob_of(folder, digest):
    return folder / "blobs" / "sha256" / digest.removeprefix("sha256:")


def put_raw(store, tag, text, envelope, manifest):
    """Puts anything that a store's owner could write under a tag."""
    for content in (text, envelope if envelope is not None else EMPTY):
        blob = blob_of(store, sha256(content))
        blob.write_bytes(content)
    open_store(str(store)).put_image(tag, write_image(manifest, text, content_address(text), envelope))


def refused(store, keys, tmp_path, said, tag="line3", **options):
    """The pull fails with one line that names the store, and leaves nothing."""
    with pytest.raises((FleetError, BundleError), match=said) as caught:
        pull(store, keys, tmp_path / "out", tag, **options)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path != store] == []


def test_there_and_back(store_folder, keys, tmp_path, new_bundle):
    pulled = pull(store_folder, keys, tmp_path / "out")
    assert pulled.manifest == new_bundle().manifest
    for name in (*pulled.manifest.files, "manifest.json"):
        assert (pulled.root / name).read_bytes() == (new_bundle().root / name).read_bytes()
    assert (pulled.root / SIGNATURE_NAME).exists()
    address = content_address((pulled.root / "manifest.json").read_bytes())
    reference = Reference.parse(f"{store_folder}@{address}")
    assert look(open_store(str(store_folder)), reference, keys.trusted).address == address
    with pytest.raises(FleetError, match=r"has no sha256-00.*: it has line3"):
        look(open_store(str(store_folder)), Reference(str(store_folder), None, "sha256:" + "0" * 64), keys.trusted)
    with pytest.raises(FleetError, match=r"has no line4: it has line3$"):
        pull(store_folder, keys, tmp_path / "b", "line4")


def test_what_is_there_is_not_sent_again(tmp_path, keys, new_bundle):
    store = open_store(str(tmp_path / "store"))
    first = push(new_bundle(0), store, "line3", keys.signing, silent)
    second = push(new_bundle(1), store, "line3", keys.signing, silent)
    assert first.there == 0 and second.sent == 0 and first.address != second.address
    assert store.tags() == sorted(["line3", address_tag(first.address), address_tag(second.address)])
    assert pull(tmp_path / "store", keys, tmp_path / "out").manifest.thresholds.image == 0.501


def test_unsigned(store_folder, keys, tmp_path, new_bundle):
    push(new_bundle(), open_store(str(store_folder)), "line3", None, silent)
    refused(store_folder, keys, tmp_path, "line3 is refused: nobody signed it")
    refused(store_folder, None, tmp_path, "nobody signed it")
    assert pull(store_folder, None, tmp_path / "out", unsigned=True)


def test_signed_but_no_key_to_check_it_by(store_folder, tmp_path):
    refused(store_folder, None, tmp_path, "no key was named to check it by")


def test_signed_by_a_stranger(store_folder, other_keys, tmp_path):
    refused(store_folder, other_keys, tmp_path, r"signed by sha256:[0-9a-f]{12}, which --trust does not name")
    # Whoever names keys wants them to count, --unsigned or not.
    refused(store_folder, other_keys, tmp_path, "does not name", unsigned=True)


def test_every_file_tampered_with(store_folder, keys, tmp_path, new_bundle):
    for name, info in new_bundle().manifest.files.items():
        blob = blob_of(store_folder, info.sha256)
        good = blob.read_bytes()
        blob.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        refused(store_folder, keys, tmp_path, f"{name} was damaged or changed")
        blob.write_bytes(good)
    assert pull(store_folder, keys, tmp_path / "out")


@pytest.mark.parametrize("left", [0, 1, -1])
def test_every_file_truncated(store_folder, keys, tmp_path, new_bundle, left):
    for name, info in new_bundle().manifest.files.items():
        blob = blob_of(store_folder, info.sha256)
        good = blob.read_bytes()
        blob.write_bytes(good[:left])
        size = len(good[:left])
        refused(store_folder, keys, tmp_path, f"{name} is truncated, {size} of {info.size} bytes")
        blob.unlink()
        refused(store_folder, keys, tmp_path, "cannot read sha256:.*: it is not there")
        blob.write_bytes(good)


def test_a_file_that_never_ends(store_folder, keys, tmp_path, new_bundle):
    info = new_bundle().manifest.files["model.onnx"]
    with blob_of(store_folder, info.sha256).open("ab") as file:
        file.truncate(1 << 40)
    refused(store_folder, keys, tmp_path, f"model.onnx is longer than the {info.size} bytes signed")


def test_every_small_blob_changed_or_cut(store_folder, keys, tmp_path, new_bundle):
    files = {info.sha256 for info in new_bundle().manifest.files.values()}
    for path in [*(store_folder / "blobs" / "sha256").iterdir(), store_folder / "index.json"]:
        if path.name in files:
            continue
        good = path.read_bytes()
        for bad in (good[:-2], b"", b"\0" * len(good), b"[" * 100_000, good.replace(b"line3", b"line4")):
            if bad != good:
                path.write_bytes(bad)
                try:
                    assert pull(store_folder, keys, tmp_path / "out"), path
                except (FleetError, BundleError):
                    assert not (tmp_path / "out").exists()
                else:  # the one that is kept for pulls by address
                    (tmp_path / "out").rename(tmp_path / f"out {path.name} {len(bad)}")
        path.write_bytes(good)


def test_huge_answers_are_not_read(store_folder, keys, tmp_path):
    index = json.loads((store_folder / "index.json").read_text())
    image = next(one["digest"] for one in index["manifests"] if one["annotations"].popitem()[1] == "line3")
    envelope = json.loads(blob_of(store_folder, image).read_text())["config"]["digest"]
    for digest, said in ((envelope, "signature is over 64 KiB"), (image, "image manifest is over 4096 KiB")):
        with blob_of(store_folder, digest).open("ab") as file:
            file.truncate(1 << 40)
        refused(store_folder, keys, tmp_path, said)


def test_another_manifest_under_a_good_signature(store_folder, keys, tmp_path, new_bundle):
    """Its owner swaps the model's thresholds, and every digest with them; only the signature is not his."""
    old = new_bundle(0)
    statement = Statement(content_address((old.root / "manifest.json").read_bytes()), "toy", "line3", now())
    text = (new_bundle(1).root / "manifest.json").read_bytes()
    put_raw(store_folder, "line3", text, sign(statement, keys.signing), new_bundle(1).manifest)
    refused(store_folder, keys, tmp_path, "manifest is not the one that was signed")


def test_the_bundle_of_another_line(store_folder, keys, tmp_path, new_bundle):
    push(new_bundle(1), open_store(str(store_folder)), "line5", keys.signing, silent)
    store = open_store(str(store_folder))
    store.put_image("line3", store.image("line5"))
    refused(store_folder, keys, tmp_path, "its signature is for the tag line5: somebody moved it")
    address = content_address((new_bundle(1).root / "manifest.json").read_bytes())
    store.put_image("line3", store.image(address_tag(address)))
    refused(store_folder, keys, tmp_path, "for a pull by content address: somebody moved it")
    # A good bundle under another's address.
    other = content_address((new_bundle(0).root / "manifest.json").read_bytes())
    store.put_image(address_tag(other), store.image(address_tag(address)))
    with pytest.raises(FleetError, match=f"it is {address[:19]}, and not what was asked for"):
        look(store, Reference(str(store_folder), None, other), keys.trusted)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../evil", "no path inside of the bundle"),
        ("/etc/evil", "no path inside of the bundle"),
        ("a/../../evil", "no path inside of the bundle"),
        ("..\\evil", "no path inside of the bundle"),
        ("manifest.json", "no bundle's own"),
        ("signature.json", "no bundle's own"),
        ("model.onnx/evil", "cannot be written"),
    ],
)
def test_paths_that_leave_the_folder(store_folder, keys, tmp_path, new_bundle, name, said):
    """Even the holder of the key cannot write elsewhere."""
    value = json.loads((new_bundle().root / "manifest.json").read_text())
    value["files"][name] = value["files"]["model.onnx"]
    text = json.dumps(value).encode()
    manifest = replace(new_bundle().manifest, files=new_bundle().manifest.files)
    envelope = sign(Statement(content_address(text), "toy", "line3", now()), keys.signing)
    put_raw(store_folder, "line3", text, envelope, manifest)
    refused(store_folder, keys, tmp_path, said)


def test_sizes_are_bounded(store_folder, keys, tmp_path, new_bundle):
    offer = look(open_store(str(store_folder)), Reference.parse(f"{store_folder}:line3"), keys.trusted)
    with pytest.raises(FleetError, match=f"has {offer.size} bytes, over the limit of 1000: raise --max-size"):
        fetch(offer, tmp_path / "out", silent, 1000)
    files = {name: replace(info, size=1 << 60) for name, info in offer.manifest.files.items()}
    with pytest.raises(BundleError, match="MiB free"):
        fetch(replace(offer, manifest=replace(offer.manifest, files=files)), tmp_path / "out", silent, 1 << 62)
    assert list(tmp_path.iterdir()) == [store_folder]


class BrokenWire:
    """A store whose connection breaks after so many bytes, so many times."""

    shown = "broken://"

    def __init__(self, store, after, times):
        self.store, self.after, self.times, self.asked = store, after, times, []

    def blob(self, digest, start=0):
        self.asked.append(start)
        for block in self.store.blob(digest, start):
            if self.times:
                self.times -= 1
                yield block[: self.after]
                raise BrokenOffError("broken://: the connection broke off")
            yield block


def test_a_transfer_that_breaks_off_goes_on_where_it_was(store_folder, keys, tmp_path):
    offer: Offer = look(open_store(str(store_folder)), Reference.parse(f"{store_folder}:line3"), keys.trusted)
    wire = BrokenWire(offer.store, 50, 3)
    fetch(replace(offer, store=wire), tmp_path / "out", silent)
    assert wire.asked[:4] == [0, 50, 100, 150] and Bundle.open(tmp_path / "out")
    with pytest.raises(BrokenOffError):
        fetch(replace(offer, store=BrokenWire(offer.store, 0, 99)), tmp_path / "again", silent)
    assert not (tmp_path / "again").exists()


def test_a_folder_that_cannot_be_written(store_folder, keys, tmp_path):
    offer = look(open_store(str(store_folder)), Reference.parse(f"{store_folder}:line3"), keys.trusted)
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written"):
        fetch(offer, tmp_path / "file" / "out", silent)
    with pytest.raises(BundleError, match="cannot be written"):
        fetch(offer, tmp_path / "nowhere" / "out", silent)
