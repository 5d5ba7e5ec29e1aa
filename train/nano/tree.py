"""Generated images as a dataset on disk, for `kanoclip-train` and `kanoclip-eval`, with a knowledge base to match.

python -m kanoclip.train.nano.tree --output DIR [--held-out]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np

from kanoclip.runtime.system.paths import replace_file
from kanoclip.train.knowledge.base import Entry, KnowledgeBase, save_knowledge
from kanoclip.train.nano.scenes.defects import DEFECTS
from kanoclip.train.nano.scenes.materials import MATERIALS
from kanoclip.train.nano.scenes.objects import THINGS
from kanoclip.train.nano.scenes.photos import Photos
from kanoclip.train.nano.scenes.scene import GOOD, Recipe, Scene, generate

ANY = "object"
"""The category that has images of everything, photographs among them: the class that the shipped bundle bakes."""
KNOWLEDGE = "knowledge.json"
HELD_OUT = ("leather", "mesh", "plastic", "circuit board", "gear", "capsule", "fruit", "bracket")
"""Materials and things that the head does not learn on: choices are made by what it does on these."""
_DESCRIBED = 5


def write_tree(folder: Path, recipe: Recipe, seed: int, each: int, mixed: int, photos: Photos | None) -> None:
    """Writes a dataset in MVTec's layout, all of it in the test split, and FOLDER/knowledge.json.

    The knowledge base comes last: where it is, the dataset is whole.

    Args:
        folder: Where to; what is there already is written again with the same bytes.
        recipe: Its size, materials, things and defects.
        seed: Of the images.
        each: Images of each material and thing.
        mixed: Images of the category `object`.
        photos: Sources of texture for `object`.
    """
    for subject in (*recipe.materials, *recipe.things):
        kind = {"materials": (subject,), "things": ()} if subject in recipe.materials else {"things": (subject,)}
        alone = replace(recipe, **{"materials": (), **kind})
        _write(folder, words_of(subject).replace(" ", "_"), [generate(alone, seed, i) for i in range(each)])
    _write(folder, ANY, [generate(recipe, seed, index, photos) for index in range(mixed)])
    save_knowledge(folder / KNOWLEDGE, knowledge(recipe))


def knowledge(recipe: Recipe) -> KnowledgeBase:
    """What is abnormal of each class, in words that the captions have too."""
    entries = {}
    for name in [*(words_of(subject) for subject in (*recipe.materials, *recipe.things)), ANY]:
        kinds = [DEFECTS[defect].words for defect in recipe.defects if defect in DEFECTS]
        first = len(entries)
        chosen = [kinds[(first * _DESCRIBED + i) % len(kinds)] for i in range(_DESCRIBED)]
        described = tuple(f"a photo of an abnormal {name} with {what}" for what in chosen)
        entries[("mvtec", name.replace(" ", "_"))] = Entry(name, f"a photo of a flawless {name}", described)
    return KnowledgeBase("generated", "1", "kanoclip.train.nano", entries)


def words_of(subject: str) -> str:
    """The words for a material or thing in captions."""
    return MATERIALS[subject].words if subject in MATERIALS else THINGS[subject].words


def _write(folder: Path, category: str, scenes: list[Scene]) -> None:
    for number, scene in enumerate(scenes):
        kind = scene.defect.replace(" ", "_")
        place = folder / category / "test" / kind
        place.mkdir(parents=True, exist_ok=True)
        replace_file(place / f"{number:04}.jpg", _encoded(scene.image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]))
        if scene.defect != GOOD:
            masks = folder / category / "ground_truth" / kind
            masks.mkdir(parents=True, exist_ok=True)
            replace_file(masks / f"{number:04}_mask.png", _encoded(scene.mask.astype(np.uint8) * 255, ".png", []))


def _encoded(image: np.ndarray, suffix: str, options: list[int]) -> bytes:
    done, content = cv2.imencode(suffix, image, options)
    assert done
    return content.tobytes()


def split(size: int, *, held_out: bool) -> Recipe:
    """The recipe without the held-out materials and things, or with nothing but them."""
    whole = Recipe(size=size)
    materials, things = (
        tuple(name for name in names if (name in HELD_OUT) == held_out) for names in (whole.materials, whole.things)
    )
    return replace(whole, materials=materials, things=things)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for the dataset.")
@click.option("--held-out", is_flag=True, help="Only of what the others leave out.")
@click.option("--photos", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of photographs.")
@click.option("--image-size", default=256, show_default=True)
@click.option("--each", default=60, show_default=True, help="Images of each material and thing.")
@click.option("--mixed", default=600, show_default=True, help="Images of the category `object`.")
@click.option("--seed", default=1000, show_default=True)
def main(output: Path, held_out: bool, photos: Path | None, image_size: int, each: int, mixed: int, seed: int) -> None:
    """Draw a dataset in MVTec's layout, all of it in the test split."""
    taken = Photos.from_folder(photos, held_out=held_out) if photos is not None else None
    write_tree(output, split(image_size, held_out=held_out), seed, each, mixed, taken)


if __name__ == "__main__":
    main()
