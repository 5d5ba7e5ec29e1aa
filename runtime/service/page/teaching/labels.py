"""Frames that a person has labelled, in a folder that `kanoclip-eval` reads.

FOLDER/CLASS/test/good/DIGEST.png and .../test/bad/DIGEST.png hold the original frames, named by the content that was
scored, and FOLDER/CLASS/records/DIGEST.json what is known of each. What is undone lies in FOLDER/CLASS/undone.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from kanoclip.runtime.detect.reference.memory import Label
from kanoclip.runtime.errors import SinkError
from kanoclip.runtime.sinks.files import sink_errors
from kanoclip.runtime.system.files.lock import Lock
from kanoclip.runtime.system.files.own import mark_folder
from kanoclip.runtime.system.paths import replace_file
from kanoclip.runtime.types import Image

FOLDERS = {Label.FINE: "good", Label.BAD: "bad"}
"""As the MVTec tree calls them."""
_LOCK = ".kanoclip-labels.lock"
_DIGITS = 16


class LabelledSet:
    """Writes labelled frames, each whole or not at all. Several runs may share a folder.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, class_name: str, label: Label, sha256: str, image: Image | bytes, record: dict[str, Any]) -> Path:
        """Saves a frame. One of the same content that has the other label gives it up.

        Args:
            class_name: What it was scored for.
            label: What it is.
            sha256: Of what was scored.
            image: The original, uint8 [H, W, 3], BGR, which is saved as PNG; or a JPEG file's bytes, saved as they are.
            record: What is known of it, JSON values.

        Returns:
            Its file.

        Raises:
            SinkError: It cannot be written; nothing of it is left, and what was there stays.
        """
        suffix, content = (".jpg", image) if isinstance(image, bytes) else (".png", _png(image))
        root = self.folder / folder_of(class_name)
        path = root / "test" / FOLDERS[label] / f"{sha256[:_DIGITS]}{suffix}"
        text = json.dumps(record | {"label": label.value, "class": class_name}, allow_nan=False, indent=1) + "\n"
        with sink_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with Lock(self.folder / _LOCK, leave=True, wait=lambda: None):
                mark_folder(self.folder)
                both = [root / "test" / folder for folder in FOLDERS.values()]  # with one alone it is no data set
                for place in (*both, root / "records"):
                    place.mkdir(parents=True, exist_ok=True)
                there = path.exists()
                replace_file(path, content, durable=True)
                try:
                    replace_file(root / "records" / f"{sha256[:_DIGITS]}.json", text.encode("ascii"), durable=True)
                except OSError:
                    if not there:
                        with suppress(OSError):
                            path.unlink()
                    raise
                for other in self._files(root, sha256):
                    if other != path:
                        other.unlink()
        return path

    def withdraw(self, class_name: str, digests: Sequence[str]) -> None:
        """Moves frames whose labels were undone out of the set; nothing is deleted.

        Raises:
            SinkError: One cannot be moved.
        """
        root = self.folder / folder_of(class_name)
        if not root.is_dir():
            return
        with sink_errors(self.folder), Lock(self.folder / _LOCK, leave=True, wait=lambda: None):
            for sha256 in digests:
                for path in self._files(root, sha256):
                    place = root / "undone" / path.parent.name
                    place.mkdir(parents=True, exist_ok=True)
                    path.replace(place / path.name)

    def _files(self, root: Path, sha256: str) -> list[Path]:
        names = (f"{sha256[:_DIGITS]}{suffix}" for suffix in (".png", ".jpg"))
        listed = [root / "test" / folder / name for name in names for folder in FOLDERS.values()]
        return [path for path in listed if path.exists()]


def folder_of(class_name: str) -> str:
    """A class's folder: its name, or where that is none for a folder, what can be read of it and a digest.

    Examples:
        >>> folder_of("ceramic tile"), folder_of("../a<b>")
        ('ceramic tile', 'a-b-2358055d')
    """
    plain = re.sub(r"[^\w -]+", "-", class_name, flags=re.ASCII).strip(" -")[:60]
    if plain == class_name and plain:
        return plain
    return f"{plain}-{hashlib.sha256(class_name.encode('utf-8', 'replace')).hexdigest()[:8]}".lstrip("-")


def _png(image: Image) -> bytes:
    done, data = cv2.imencode(".png", image)
    if not done:
        raise SinkError("the frame cannot be encoded as PNG")
    return data.tobytes()
