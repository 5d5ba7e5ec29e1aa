"""Photographed surfaces from packages with free licences, as sources of texture beside the painted materials.

python -m kanoclip.train.nano.photos --output photos
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.files import replace_file
from kanoclip.runtime.types import Image
from kanoclip.train.nano.materials import Paint
from kanoclip.train.nano.noise import Rng

_SIDE = 768
"""Pixels; larger photographs are reduced to it, so that all of them fit into memory."""


@dataclass(frozen=True)
class Source:
    """A package whose wheel holds photographs.

    Attributes:
        requirement: For pip, with an exact version.
        licence: Of the package.
        folder: Of the pictures inside the wheel, ends with a slash.
        pictures: File name -> (words for captions, SHA-256 of the file).
    """

    requirement: str
    licence: str
    folder: str
    pictures: dict[str, tuple[str, str]]


SOURCES = (
    Source(
        "robosuite==1.5.2",
        "MIT",
        "robosuite/models/assets/textures/",
        {
            "blue-wood.png": ("painted wood", "9b1eab21395a05d7463751f9075b16bc4fba8fd4be42938bda25ea634a345884"),
            "brass-ambra.png": ("brass sheet", "246007818045b92276631294bb61d797806f2381d7044e98b6e3c4465f8e085c"),
            "bread.png": ("bread crust", "22814a06ae3c7dc097801887e6aec97f830b7368b611cab56d1c4ad5ae57bddc"),
            "clay.png": ("clay", "0ea2ced7f0f07996292314e3f3f5df68c4d8c5b2cbf2180c899ed269906fdcd2"),
            "cream-plaster.png": ("plaster", "5f989033f089158b2c8f0f1f7881f6922b018a5b154558b2edcc9f41a21ab983"),
            "dark-wood.png": ("wooden boards", "5da8dbf7af06ecd251840aceec25fedcfa98267041cea289b2829c982e008dc3"),
            "dirt.png": ("soil", "b410966a8e0c1d52e2847bdb61aa51c6291efcd7e92839923637d0dcdb91e973"),
            "gray-felt.png": ("felt", "04c1b483f04be0bd3d26a42ca530c05244cf4b52c0ccb027dbb8fc2bee41ca05"),
            "gray-plaster.png": ("plaster", "7ee7520ebf6118051ced809cb9754983e7537a40f8d5271d5cb2fabdd71c33bd"),
            "gray-woodgrain.png": ("wood grain", "b9e65c147f2683dbcfe6279b359db649aef0cb40ef8b1e3ed5ba6f29fab6b3d0"),
            "green-wood.png": ("painted wood", "e4fd42ec6dea58f46aa96fc1d78d57c52450a6497dcad887ae8e2ff8c4af3797"),
            "lemon.png": ("citrus peel", "93a21938e5fe8d62a042c5591b13b9bec75d94791f7d08f375beb60fce523610"),
            "light-gray-floor-tile.png": (
                "floor tiles",
                "a2aae4ba3b38c3ab9851eca9ad6e76cef9357ef75b3e9a4b280f694ca30acbc5",
            ),
            "light-gray-plaster.png": ("plaster", "d0bdaf13b44ab6ef3122451f6b3853e40bdf20bb9be7662649683ba525dfe191"),
            "light-wood.png": ("wooden boards", "967be64bdb170d36283bc43c2ae5d525ec88f78bc837dc7d0efc9a28d68caad1"),
            "pink-plaster.png": ("plaster", "c6f8435c8aec555fa89ee72d472d652f31ce1afc0e07372e9857b0aa50f6e029"),
            "red-wood.png": ("painted wood", "d42411e594d6be26c4876ada623b163af6621402462b244d86eaf6e72aca6494"),
            "steel-brushed.png": ("brushed steel", "43f30e7a2d0e8085aa15f58623b1753a003f93e5fe336eeaf65c146f955a81d5"),
            "white-bricks.png": ("brick wall", "864e2bfb462939212c4141a060eb4c3f34c891b6909873797b08f8c4185433d1"),
            "white-plaster.png": ("plaster", "a35c03edcef74c940400dd39e2384d05169d1d15ac247166b3b7a930acd70f03"),
            "wood-tiles.png": ("parquet", "18d87069529422d832559ce969858576dd46f83efc3dfd9e5ffbf26d740be123"),
            "wood-varnished-panels.png": (
                "wooden panels",
                "67b48dc99b89004d98cb0811f170d39993e7e205cc8d5bd3d01a4be137e33a85",
            ),
            "yellow-plaster.png": ("plaster", "7f98027e5dd4ad845a1a20f302b183c62b8e8fab54799634c5143c1dde0d0362"),
        },
    ),
    Source(
        "metaworld==3.1.1",
        "MIT",
        "metaworld/assets/",
        {
            "scene/textures/fabricPattern.png": (
                "patterned fabric",
                "613ddb3c44ff87b84478bd33bf677b782f462dd4f091024a3696839e97799837",
            ),
            "scene/textures/fabricPlain.png": (
                "linen",
                "ddae274b145592aeb3153251d4f041e8f59be4f8427edf66bd4b5f5589f2159e",
            ),
            "scene/textures/metal.png": (
                "galvanised metal",
                "9886dcad81c8dcbf7854ffd5368d6d56420dad66cc09cedd7c229ed7db9af8ef",
            ),
            "scene/textures/metal1.png": (
                "dark metal",
                "ce631659f0d76a36ab5655cbc60f40f8e5dd1b888070a0cc941a87c15f43a158",
            ),
            "scene/textures/plaster.png": (
                "plaster",
                "f65e8903a71bdc633fa03b1dbc97bf37df901f2293d089b48d20f7168201160e",
            ),
            "scene/textures/white_marble_tile.png": (
                "stone tiles",
                "d054514d195d5d3d967d6570a3c9ea9478bbd192bd80aa742b91cec0253f1f11",
            ),
            "scene/textures/white_marble_tile2.png": (
                "stone tiles",
                "fc7acf625b5ec4fa4a5bc92f61e719d33ae16652a18956682923dc3b34038b84",
            ),
            "scene/textures/wood.png": ("wood", "cbcf5e8f7f191393ab6ff7a17866d4bb999bc8b0337a8b27496aca03556cafcf"),
            "scene/textures/wood2.png": ("wood", "d569bab595958c9c10457c3268df979a20f5d3688c4f36564613fb36828cd438"),
            "textures/brick1.png": ("brick wall", "f2a104b1526325e6b893bf47508fa11a428d6b742cf87d965c71cd3962e91679"),
            "textures/darkwood.png": ("wood", "29286115b5656864d48e48b34f3afba0f0148a9cd491d5553b1a299dd7b16177"),
            "textures/floor1.png": ("floor tiles", "ebcea7a4e017c95374eb37c56c9683d8bc58bfd2dae8f8cb05342d10047322f7"),
            "textures/floor2.png": ("floor tiles", "cba4a03701e18f2e211a7de1e22a4489095769cfa6a5cd7edacbff682f54cbef"),
            "textures/granite.png": ("granite", "481dcf2ee1ae8621f398f82242cdfedbd70bef3ec23ae4805d9fcc2f29b87adb"),
            "textures/light_wood.png": ("wood", "7b1ed1f0874e3bb3b3ab3b47082aa0206c7fb7b0faa9665994d8be6fcb7915e1"),
            "textures/light_wood_v3.png": ("wood", "3070946ee0d46724a213e959ddd3a741be79a15498c222a585e3c12e31f40633"),
            "textures/marble.png": ("marble", "7bf4e0df6f91136673e2eaa39824ddc629b22d538ea35edc7ea5b658cf5b480c"),
            "textures/metal.png": ("brushed metal", "93784216a66b52be9c8ccc3732e50f511815291e32f34f97bd139ed7229061fa"),
            "textures/metal1.png": ("metal sheet", "0d25fa8affbb0f579220f0cdad6ee74f875495822ee79bb5afd23d73671f6363"),
            "textures/navy_blue.png": ("leather", "6eea86c663e4040903af49262db534c4287c8ac3e7d8e92b04784b258fe2d6fd"),
            "textures/plaster1.png": ("plaster", "9fed448abd5696fdc5f58caac48d6aa887da519becabf12be673d9906e8d8bae"),
            "textures/wood1.png": ("wooden boards", "a39fbea7e52f7988753424d135bbf36e696087bd267cc362cfbbd6725eb36dbe"),
            "textures/wood2.png": ("wood", "3cf37d37eee85a147ee91ae58c70901d97d4278847b8adf3c1cc8dfbabb667c7"),
            "textures/wood3.png": ("wood", "86ab7a2724e9afe0feb691ca2bfccce5fa0503ab73d98e6f344030c8d56c8803"),
            "textures/wood4.png": ("parquet", "d9bfe4a726e3b4593de67731b899be3a5c5695d66661e4ea6768a021fdcdc4f1"),
        },
    ),
    Source(
        "scikit-image==0.26.0",
        "BSD-3-Clause",
        "skimage/data/",
        {
            "brick.png": ("paving stones", "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf"),
            "camera.png": ("photographer", "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a"),
            "chelsea.png": ("cat", "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb"),
            "coffee.png": ("cup of coffee", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
            "coins.png": ("coins", "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba"),
            "grass.png": ("grass", "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89"),
            "gravel.png": ("gravel", "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12"),
            "motorcycle_left.png": ("motorcycle", "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179"),
        },
    ),
)
"""Chosen by eye: surfaces without text, trademarks or faces, and a few pictures of things."""


class Photos:
    """Photographs in memory, cut and coloured anew for every picture."""

    def __init__(self, folder: Path) -> None:
        """Reads what `fetch` wrote.

        Raises:
            TrainingError: A photograph is missing or has other bytes.
        """
        self.words: list[str] = []
        self.pictures: list[Image] = []
        for source in SOURCES:
            for name, (words, digest) in source.pictures.items():
                path = folder / _stored(source, name)
                content = path.read_bytes() if path.exists() else b""
                if hashlib.sha256(content).hexdigest() != digest:
                    raise TrainingError(
                        f"{path} is missing or not the known photograph: "
                        f"python -m kanoclip.train.nano.photos --output {folder}"
                    )
                self.words.append(words)
                self.pictures.append(_reduce(np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), 1), np.uint8)))

    def paint(self, rng: Rng, size: int) -> tuple[Paint, str]:
        """A part of a photograph: (float32 [size, size, 3], BGR in [0, 1]; its words)."""
        pick = int(rng.integers(len(self.pictures)))
        picture = self.pictures[pick]
        most, share = min(picture.shape[:2]), rng.uniform(0.3, 1.0)
        longer = 2 ** rng.uniform(-0.7, 0.7)
        height, width = (int(most * min(1.0, share * stretch)) for stretch in (longer, 1 / longer))
        y, x = (int(rng.integers(0, a - b + 1)) for a, b in zip(picture.shape[:2], (height, width), strict=True))
        part = np.rot90(picture[y : y + height, x : x + width], int(rng.integers(4)))
        part = part[:, ::-1] if rng.random() < 0.5 else part
        way = cv2.INTER_AREA if min(height, width) > size else cv2.INTER_CUBIC
        paint = np.asarray(cv2.resize(np.ascontiguousarray(part), (size, size), interpolation=way), np.float32) / 255
        if rng.random() < 0.35:
            paint = np.repeat(paint.mean(axis=2, keepdims=True), 3, axis=2)
        elif rng.random() < 0.35:
            paint = paint[..., rng.permutation(3)]
        mean = np.float32(paint.mean())
        paint = mean * np.float32(rng.uniform(0.55, 1.2)) + (paint - mean) * np.float32(rng.uniform(0.4, 1.1))
        return np.clip(paint, 0, 1).astype(np.float32), self.words[pick]


def fetch(folder: Path) -> None:
    """Takes the photographs out of their packages' wheels, which pip downloads; what is there already stays.

    Raises:
        TrainingError: pip cannot get a wheel, or a photograph in it has other bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for source in SOURCES:
        if all((folder / _stored(source, name)).exists() for name in source.pictures):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            _download(source, Path(temporary))
            (wheel,) = Path(temporary).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                for name, (_, digest) in source.pictures.items():
                    content = archive.read(source.folder + name)
                    if hashlib.sha256(content).hexdigest() != digest:
                        raise TrainingError(f"{name} in {wheel.name} is not the known photograph")
                    replace_file(folder / _stored(source, name), content)


def _download(source: Source, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), source.requirement], capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainingError(f"pip cannot download {source.requirement}: {last}")


def _stored(source: Source, name: str) -> str:
    return f"{source.requirement.split('==')[0]}-{name.replace('/', '-')}"


def _reduce(picture: Image) -> Image:
    share = _SIDE / min(picture.shape[:2])
    if share >= 1:
        return picture
    size = (round(picture.shape[1] * share), round(picture.shape[0] * share))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the photographs.")
def main(output: Path) -> None:
    """Fetch the photographs that `pretrain --photos` draws from."""
    fetch(output)
    click.echo(f"{len(Photos(output).pictures)} photographs: {output}")


if __name__ == "__main__":
    main()
