"""Mutated inputs from outside, and who reads them: each answers with a result, a reason, or an error of the family."""

from __future__ import annotations

import io
import json
import random
import socket
import threading
import zlib
from contextlib import closing, suppress

import cv2
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
from health_server import serve_health

from kanoclip.runtime.bundle.external_data import external_files
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.cli.run_options.line_file import read_line
from kanoclip.runtime.detect.settings.roi_file import read_roi
from kanoclip.runtime.errors import KanoclipError
from kanoclip.runtime.ops.fleet.statement import Statement, now, sign, verified
from kanoclip.runtime.ops.fleet.stores.oci import read_image as read_oci_image
from kanoclip.runtime.ops.fleet.stores.oci import read_index, with_tag, write_image
from kanoclip.runtime.ops.report.results import Results
from kanoclip.runtime.ops.score.listing import list_items
from kanoclip.runtime.service.health import Health
from kanoclip.runtime.sources.files.headers.header import image_size
from kanoclip.runtime.sources.files.images import read_image, read_reduced
from kanoclip.runtime.sources.files.reading import Reading
from kanoclip.runtime.sources.files.video import VideoSource
from kanoclip.train.data.masks import decode_mask

SMALL = Reading(max_pixels=1 << 22)
ODD = [b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\x00\x00\x00", b"\0" * 64, b"[" * 3000]
WORDS = [b"null", b"true", b"-1", b"1e999", b"NaN", b"9" * 5000, b'"\\ud800"', b"[]", b"{}", b'"' + b"x" * 9000 + b'"']


def mutated(raw, draw, *, text=False):
    """Bytes with some of them changed, cut, doubled or put elsewhere; of a text, whole words, too."""
    spoilt = bytearray(raw)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        place = draw.randrange(len(spoilt) + 1)
        kind = draw.randrange(7)
        if kind == 0 and spoilt:
            spoilt[place % len(spoilt)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            spoilt[place:place] = draw.choice(WORDS if text else ODD)
        elif kind == 2:
            del spoilt[place : place + draw.choice((1, 2, 8, 200))]
        elif kind == 3:
            spoilt[place:place] = spoilt[place : place + draw.choice((4, 30, 500))]
        elif kind == 4 and draw.random() < 0.3:
            del spoilt[place:]
        elif kind == 5 and text:
            numbers = [at for at, one in enumerate(spoilt) if chr(one) in '0123456789"[{']
            if numbers:
                at = draw.choice(numbers)
                spoilt[at : at + draw.choice((1, 3, 20))] = draw.choice(WORDS)
        elif spoilt:
            start = place % len(spoilt)
            block = draw.randbytes(draw.choice((1, 2, 4)))
            spoilt[start : start + len(block)] = block
    return bytes(spoilt)


def with_right_sums(png):
    """A PNG whose checksums fit again: what is spoilt in it reaches the decoder."""
    found, position = bytearray(png), 8
    while position + 12 <= len(found):
        length = int.from_bytes(found[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(found):
            break
        found[end : end + 4] = zlib.crc32(found[position + 4 : end]).to_bytes(4, "big")
        position = end + 4
    return bytes(found)


class Seeds:
    """Whole inputs of each kind.

    Args:
        folder: Where files may be written.
        bundle: A toy bundle.
        keys: A pair of keys.
    """

    def __init__(self, folder, bundle, keys):
        self.folder, self.keys = folder, keys
        self.manifest = (bundle / "manifest.json").read_bytes()
        self.graph = (bundle / "model.onnx").read_bytes()
        self.images = list(self._images())
        self.videos = [self._video(fourcc, suffix) for fourcc, suffix in (("MJPG", "avi"), ("mp4v", "mp4"))]
        self.line = (
            b'[[source]]\nurl = "parts/"\nname = "a"\ndamaged = "keep"\nmax_pixels = 9\n[decision]\nthreshold = 0.5\n'
            b'alarm = "3/5"\nroi = "x.json"\n[[sink]]\nkind = "jsonl"\npath = "x.jsonl"\n'
        )
        self.roi = json.dumps({"units": "relative", "keep": [[[0, 0], [1, 0], [0.5, 1]]], "ignore": []}).encode()
        labelled = {"label": "keep", "points": [[1, 1], [9, 1], [5, 9]], "shape_type": "polygon"}
        self.labelme = json.dumps({"imageWidth": 10, "imageHeight": 10, "shapes": [labelled]}).encode()
        table = io.BytesIO()
        pq.write_table(pa.table({"path": ["a.png", "b.png"] * 50, "score": [0.1, 0.9] * 50}), table)
        self.table = table.getvalue()
        manifest = read_manifest(self.manifest.decode())
        address = "sha256:" + "a" * 64
        self.envelope = sign(Statement(address, "toy", "line3", now()), keys.signing)
        self.oci = write_image(manifest, self.manifest, address, self.envelope)
        self.index = with_tag(None, "line3", self.oci)

    def _images(self):
        drawn = np.add.outer(np.arange(24), np.arange(32)).astype(np.uint8) * 3
        colour = cv2.merge([drawn, drawn[::-1], drawn[:, ::-1]])
        deep = drawn.astype(np.uint16) << 4
        clear = np.dstack([colour, drawn])
        for suffix, image in (
            *((one, colour) for one in ("png", "jpg", "tif", "webp", "bmp", "ppm", "gif")),
            *((one, deep) for one in ("png", "tif", "pgm")),
            *((one, clear) for one in ("png", "tif", "webp")),
        ):
            with suppress(cv2.error):
                done, raw = cv2.imencode(f".{suffix}", image)
                if done:
                    yield suffix, raw.tobytes()
        tags = PIL.Image.Exif()
        tags[0x112] = 6
        for form, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
            raw = io.BytesIO()
            PIL.Image.fromarray(colour).save(raw, form, exif=tags.tobytes())
            yield suffix, raw.getvalue()

    def _video(self, fourcc, suffix):
        path = self.folder / f"seed.{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), 10, (64, 48))
        for number in range(6):
            writer.write(np.full((48, 64, 3), 40 * number, np.uint8))
        writer.release()
        return suffix, path.read_bytes()


def manifests(seeds, draw):
    text = mutated(seeds.manifest, draw, text=True)
    read_manifest(text.decode("utf-8", "surrogateescape" if draw.random() < 0.2 else "replace"))


def graphs(seeds, draw):
    raw = mutated(seeds.graph.replace(b"mean", b"location", 1), draw)
    external_files(written(seeds, "a.onnx", raw))


def images(seeds, draw):
    suffix, raw = draw.choice(seeds.images)
    raw = mutated(raw, draw)
    if suffix == "png" and draw.random() < 0.7:
        raw = with_right_sums(raw)
    path = written(seeds, f"a.{suffix}", raw)
    image_size(path)
    found = draw.choice((read_image, decode_mask, lambda path, *_: read_reduced(path, 4, 4, SMALL)))
    answer = found(path, SMALL) if found is read_image else found(path)
    assert not isinstance(answer, str) or (answer and len(answer) <= 300 and answer.isprintable())


def videos(seeds, draw):
    suffix, raw = draw.choice(seeds.videos)
    head = mutated(raw[:2000], draw) + raw[2000:] if draw.random() < 0.7 else mutated(raw, draw)
    with closing(VideoSource(written(seeds, f"a.{suffix}", head), SMALL)) as source:
        for number, _ in enumerate(source.frames()):
            if number > 20:
                break


def lines(seeds, draw):
    read_line(written(seeds, "a.toml", mutated(seeds.line, draw, text=True)))


def polygons(seeds, draw):
    read_roi(written(seeds, "a.json", mutated(draw.choice((seeds.roi, seeds.labelme)), draw, text=True)))


def tables(seeds, draw):
    path = written(seeds, "a.parquet", mutated(seeds.table, draw))
    if draw.random() < 0.5:
        Results(path)
    else:
        list(list_items(str(path)))


def stores(seeds, draw):
    kind = draw.randrange(3)
    if kind == 0:
        read_oci_image(mutated(seeds.oci, draw, text=True))
    elif kind == 1:
        read_index(mutated(seeds.index, draw, text=True))
    else:
        verified(mutated(seeds.envelope, draw, text=True), seeds.keys.trusted)


REQUEST = (
    b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nCookie: a=b; c\r\n"
    b"Authorization: Bearer x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\ntoken=x"
)
PATHS = (b"/login", b"/", b"/api/thresholds", b"/api/gallery/x/record", b"/static/page.css", b"/healthz", b"/api/class")
HANDSHAKE = (
    b"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
FRAME = b"\x81\xa5\0\0\0\0" + b'{"stream":"","pictures":true,"span":60}'[:37]


def talk(port, *messages):
    """Sends to a server what may be anything, and takes what comes for a moment."""
    with socket.create_connection(("127.0.0.1", port), timeout=2) as peer, suppress(OSError):
        for message in messages:
            peer.sendall(message)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


def http_requests(port, draw):
    request = REQUEST.replace(b"/login", draw.choice(PATHS), 1)
    talk(port, mutated(request.replace(b"127.0.0.1", b"127.0.0.1:%d" % port), draw, text=draw.random() < 0.3))


def websockets(port, draw):
    shake = HANDSHAKE.replace(b"127.0.0.1", b"127.0.0.1:%d" % port)
    talk(port, shake if draw.random() < 0.8 else mutated(shake, draw), mutated(FRAME, draw), mutated(FRAME, draw))


CONNACK, PUBACK = b"\x20\x02\x00\x00", b"\x40\x02\x00\x01"


class FalseBroker:
    """Answers whoever connects with what it likes."""

    def __init__(self, draw):
        self._draw = draw
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.answered = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                with peer, suppress(OSError):
                    peer.settimeout(0.2)
                    peer.recv(4096)
                    peer.sendall(CONNACK if self._draw.random() < 0.6 else mutated(CONNACK, self._draw))
                    for _ in range(3):
                        peer.sendall(mutated(PUBACK, self._draw))
                    self.answered += 1
                    peer.recv(4096)

    def close(self):
        self._socket.close()


def written(seeds, name, raw):
    path = seeds.folder / name
    path.write_bytes(raw)
    return path


READERS = {
    "manifests": (manifests, 1500),
    "graphs": (graphs, 1500),
    "images": (images, 2600),
    "videos": (videos, 300),
    "lines": (lines, 1000),
    "polygons": (polygons, 1000),
    "tables": (tables, 600),
    "stores": (stores, 1000),
}
"""Each kind of input that is read at once, with its share of a night's 10,000."""
SERVED = {"http": (http_requests, 300), "websocket": (websockets, 200)}


def try_one(read, seeds, draw):
    """Reads a mutated input; only errors of the family may come of it."""
    with suppress(KanoclipError):
        read(seeds, draw)


def draw_for(name, seed):
    """The same inputs for the same seed, kind by kind."""
    return random.Random(f"{name} {seed}")


def serve_checks():
    """A server of health checks."""
    return serve_health(Health(), ("127.0.0.1", 0))
