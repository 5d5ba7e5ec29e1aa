"""A selection of the gallery as a dataset in the MVTec tree, for kanoclip-train and kanoclip-eval.

    CLASS/train/good/            empty: a normal image of the gallery is one that was called anomalous
    CLASS/test/good/KEY.jpg
    CLASS/test/DEFECT/KEY.jpg
    export.json                  where each one came from, and what was left out

Masks are not written: what the model found is no ground truth.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kanoclip.runtime.service.page.gallery import Gallery
from kanoclip.runtime.service.page.requests import BadRequestError, MissingError, values_of, who

log = logging.getLogger(__name__)

MAX_IMAGES = 500
MAX_BYTES = 256 << 20
"""Of all images; a browser holds them in memory."""
MAX_REQUEST = 128 << 10
LONGEST = 48
"""Letters of a class or a defect."""
NORMAL = frozenset({"good", "ok"})
"""What the tree's readers take for normal images."""
_ISO = "%Y-%m-%dT%H:%M:%SZ"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""A zip's oldest time: one selection gives one file, to the byte."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """An image of the selection.

    Attributes:
        key: The gallery's.
        label: `good`, or the kind of defect, as its folder is called.
    """

    key: str
    label: str


class Export:
    """Answers requests for a dataset.

    Args:
        gallery: What is selected from.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery

    async def download(self, request: Request) -> Response:
        """The selection as a zip file, made while it is sent: one image at a time is in memory."""
        chosen = parse((await values_of(request, {"images"}, MAX_REQUEST)).get("images"))
        loop = asyncio.get_running_loop()
        there = await loop.run_in_executor(None, self._there, chosen)
        if not there:
            raise MissingError
        log.info("%d images of the gallery are exported (%s)", len(there), who(request))
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        return StreamingResponse(
            zipped(self._gallery, chosen),
            media_type="application/zip",
            headers={
                "content-disposition": f'attachment; filename="anomalies-{stamp}.zip"',
                "x-kanoclip-left-out": str(len(chosen) - len(there)),
            },
        )

    def _there(self, chosen: list[Chosen]) -> list[Chosen]:
        return [one for one in chosen if self._gallery.record(one.key) is not None]


def parse(images: Any) -> list[Chosen]:
    """Checks a selection.

    Args:
        images: A list of {"key": ..., "label": ...}.

    Raises:
        BadRequestError: It is none, is empty, or has too many images.
    """
    if not isinstance(images, list) or not images:
        raise BadRequestError("select at least one image")
    if len(images) > MAX_IMAGES:
        raise BadRequestError(f"at most {MAX_IMAGES} images go into one export: make several")
    found: dict[str, Chosen] = {}
    for one in images:
        key, label = (one.get("key"), one.get("label")) if isinstance(one, dict) else (None, None)
        if not isinstance(key, str) or not isinstance(label, str) or not label.strip():
            raise BadRequestError("each image needs a key and a label: good, or the kind of defect")
        found[key] = Chosen(key, folder_name(label, "defect"))
    return list(found.values())


def folder_name(name: str, otherwise: str) -> str:
    """A name as a folder may be called on any system: letters, digits, dashes and underscores."""
    plain = re.sub(r"[^0-9A-Za-z_-]+", "-", name).strip("-")[:LONGEST].strip("-") or otherwise
    return "good" if plain.casefold() in NORMAL else plain


def _file_name(key: str) -> str:
    """A key as a file may be called. It is whole: of two cameras at one moment only its end differs."""
    return re.sub(r"[^0-9A-Za-z._-]+", "-", key).strip(".-") or "image"


@dataclass
class _Pipe:
    """What a zip file is written to; it is read while it is written, and never sought in."""

    parts: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def take(self) -> bytes:
        data = b"".join(self.parts)
        self.parts.clear()
        return data


def zipped(gallery: Gallery, chosen: list[Chosen]) -> Iterator[bytes]:
    """The tree as a zip file, piece by piece. What the gallery has no longer is left out, and listed as such."""
    pipe = _Pipe()
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    made: set[str] = set()
    size = 0
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for one in chosen:
            record, image = gallery.record(one.key), gallery.original(one.key)
            if record is None or image is None:
                left_out.append({"key": one.key, "reason": "no longer in the gallery"})
                continue
            if size + len(image) > MAX_BYTES:
                left_out.append({"key": one.key, "reason": f"over {MAX_BYTES >> 20} MiB in all"})
                continue
            size += len(image)
            top = folder_name(str(record.get("class", "")), "object")
            for folder in (f"{top}/train/good/", f"{top}/test/good/"):
                if folder not in made:  # without one of them a folder of defects is no category
                    made.add(folder)
                    archive.writestr(zipfile.ZipInfo(folder, _EPOCH), b"")
            path = f"{top}/test/{one.label}/{_file_name(one.key)}.jpg"
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), image)
            rows.append({"file": path, "label": one.label, "key": one.key, "record": record})
            yield pipe.take()
        about = {
            "made": datetime.now(timezone.utc).strftime(_ISO),
            "masks": "none: what a model finds is no ground truth",
            "images": rows,
            "left_out": left_out,
        }
        archive.writestr(zipfile.ZipInfo("export.json", _EPOCH), json.dumps(about, indent=1) + "\n")
    yield pipe.take()
