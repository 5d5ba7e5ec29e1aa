"""A bundle on disk: found, verified file by file, and only then used."""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import cv2
import numpy as np

from kanoclip.runtime.bundle.external_data import external_files
from kanoclip.runtime.bundle.manifest.reading import read_manifest
from kanoclip.runtime.bundle.manifest.schema import MANIFEST_NAME, MODEL_FILE, Manifest
from kanoclip.runtime.errors import BundleError
from kanoclip.runtime.system.files.regular import read_regular, read_small
from kanoclip.runtime.types import Image

SUFFIX = ".kanoclip"
SAMPLES_FOLDER = "samples"
"""Some images of the parity gate travel with the bundle, for `kanoclip-doctor` on the machine that runs it."""
SHIPPED = "nano" + SUFFIX
BUILTIN = "builtin"
"""What the shipped bundle is called where a bundle is named; a folder of that name is `./builtin`."""
BLOCK = 1 << 20
MANIFEST_LIMIT = 16 << 20
_HEADROOM = 1 << 20
_FRAME_HEADER = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]...(.{4})", re.DOTALL)
"""Of a JPEG: height and width."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        root: Its folder.
        manifest: What it says.
    """

    root: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The ONNX graph."""
        return self.root / MODEL_FILE

    def graph_digest(self) -> str:
        """One sha256 for the graph and the weights that lie beside it."""
        files = self.manifest.files
        listed = [f"{name} {files[name].sha256}\n" for name in sorted(files) if name.startswith(MODEL_FILE)]
        return hashlib.sha256("".join(listed).encode()).hexdigest()

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists.

        Raises:
            BundleError: It lists no such file.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.root} has no file {name}: export the bundle again")
        return Path(self.root, name)

    def samples(self) -> list[Image]:
        """The images that travel with the bundle, uint8 [H, W, 3], BGR, of the size that the graph takes.

        Raises:
            BundleError: It has none, or one is no image of that size.
        """
        names = sorted(name for name in self.manifest.files if name.startswith(SAMPLES_FOLDER + "/"))
        if not names:
            raise BundleError(f"{self.root} has no images of its own: export it again with this version")
        images = []
        for name in names:
            image = _sample(self.root / name, self.manifest.frame_size)
            if image is None or image.shape != (*self.manifest.frame_size, 3):
                raise BundleError(f"{self.root}: {name} is no image of the graph's size: export the bundle again")
            images.append(np.asarray(image, np.uint8))
        return images

    def reread(self) -> Bundle:
        """This bundle with the thresholds and memories that are in its manifest by now.

        Of the files only memories that are new are looked at.

        Raises:
            BundleError: The manifest or a new memory cannot be read, or the manifest tells of another graph.
        """
        try:
            now = read_manifest(read_small(self.root / MANIFEST_NAME, MANIFEST_LIMIT).decode())
            new = {name: info for name, info in now.files.items() if self.manifest.files.get(name) != info}
            for name, info in new.items():
                _verify(self.root, name, info.size, info.sha256)
        except (OSError, UnicodeDecodeError, BundleError) as error:
            raise BundleError(f"{self.root} cannot be read again ({error})") from error
        memories = {name for manifest in (self.manifest, now) for name in manifest.memory_files}
        same = replace(
            self.manifest,
            thresholds=now.thresholds,
            class_thresholds=now.class_thresholds,
            provenance=now.provenance,
            references=now.references,
            files={
                **{name: info for name, info in self.manifest.files.items() if name not in memories},
                **{name: info for name, info in now.files.items() if name in memories},
            },
        )
        if same != now:
            raise BundleError(f"{self.root} has become another bundle since the start: start again to use it")
        return replace(self, manifest=now)

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Opens a bundle and checks every file's place, size and sha256.

        A link is followed now and for good: whoever moves it to another bundle later does not change this one.

        Raises:
            BundleError: The folder or a file is missing, damaged, or outside of the bundle; the message says which.
        """
        root = Path(path)
        try:
            if not root.exists():
                raise BundleError(f"no bundle {root}: make one with kanoclip-export, or name another with --bundle")
            if not root.is_dir():
                raise BundleError(f"{root} is not a folder: a bundle is a folder NAME{SUFFIX}")
            if not (root / MANIFEST_NAME).is_file():
                raise BundleError(f"{root} holds no {MANIFEST_NAME}: it is not a bundle, or only a part was copied")
            if root.is_symlink():
                root = root.resolve()
            return cls(root, _read(root))
        # Python before 3.13 tells of a ring of links with a RuntimeError.
        except (OSError, RuntimeError, UnicodeDecodeError) as error:
            raise BundleError(f"{root} cannot be read ({error}): copy or export the bundle again") from error


def _sample(path: Path, size: tuple[int, int]) -> Image | None:
    """A JPEG as the export wrote it; None for what is none of the size, which is not decoded to find out."""
    raw = read_regular(path, 4 * size[0] * size[1] + _HEADROOM) or b""
    if not raw.startswith(b"\xff\xd8") or {struct.unpack(">HH", one) for one in _FRAME_HEADER.findall(raw)} != {size}:
        return None
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.asarray(image, np.uint8)


def _read(root: Path) -> Manifest:
    path = root / MANIFEST_NAME
    try:
        _check_inside(root, MANIFEST_NAME)
        if path.stat().st_size > MANIFEST_LIMIT:
            raise BundleError(f"{MANIFEST_NAME} is over {MANIFEST_LIMIT >> 20} MiB: it is no manifest")
        manifest = read_manifest(read_small(path, MANIFEST_LIMIT).decode())
        for name, info in manifest.files.items():
            _verify(root, name, info.size, info.sha256)
        _check_external(root, manifest)
    except BundleError as error:
        raise BundleError(f"{root}: {error}") from error
    return manifest


def _verify(root: Path, name: str, size: int, digest: str) -> None:
    path = root / name
    _check_inside(root, name)
    if not path.is_file():
        raise BundleError(f"{name} is missing: copy or export the bundle again")
    found = path.stat().st_size
    if found != size:
        raise BundleError(f"{name} has {found} bytes, expected {size}: copy or export the bundle again")
    if sha256_of(path) != digest:
        raise BundleError(f"{name} is damaged (its sha256 is not the manifest's): copy or export the bundle again")


def _check_external(root: Path, manifest: Manifest) -> None:
    """Refuses graphs whose weights lie in a file that was not verified."""
    for name in manifest.files:
        if name.endswith(".onnx"):
            for other in sorted(external_files(root / name)):
                if (Path(name).parent / other).as_posix() not in manifest.files:
                    raise BundleError(
                        f"{name} takes weights from {other!r}, which {MANIFEST_NAME} does not list: do not use it"
                    )


def _check_inside(root: Path, name: str) -> None:
    if not (root / name).resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{name} is a link that leaves the bundle: do not use it")


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def find_bundle(explicit: str | None, folder: Path) -> Path:
    """Which bundle to run.

    Args:
        explicit: What the user named, if anything: a folder, or BUILTIN for the one that is shipped.
        folder: Where to look otherwise: the one `*.kanoclip` in it, or else the one that is shipped.

    Raises:
        BundleError: Several bundles lie there, or none is shipped.
    """
    if explicit == BUILTIN:
        return shipped_bundle()
    if explicit is not None:
        return Path(explicit)
    found = sorted(path for path in folder.glob("*" + SUFFIX) if (path / MANIFEST_NAME).is_file())
    if len(found) > 1:
        raise BundleError(
            f"several bundles here ({', '.join(p.name for p in found)}): name one, or {BUILTIN} for the shipped one"
        )
    if found:
        return found[0]
    return shipped_bundle()


def shipped_bundle() -> Path:
    """The bundle that travels with the package.

    Raises:
        BundleError: This package has none.
    """
    shipped = Path(str(resources.files("kanoclip.runtime.bundle.shipped").joinpath(SHIPPED)))
    if not shipped.is_dir():
        raise BundleError("no bundle here and none is shipped: make one with kanoclip-export")
    return shipped
