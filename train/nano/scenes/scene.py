"""One generated image: a material or a thing, whole or with a defect, photographed; with its mask and captions."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kanoclip.runtime.errors import TrainingError
from kanoclip.runtime.types import Image
from kanoclip.train.nano.scenes.borders import end_of_surface, intrude
from kanoclip.train.nano.scenes.camera import distract, light, pose, shoot
from kanoclip.train.nano.scenes.defects import DEFECTS
from kanoclip.train.nano.scenes.marks import blend, blob
from kanoclip.train.nano.scenes.materials import MATERIALS, Paint, any_colour
from kanoclip.train.nano.scenes.noise import Field, Rng, fractal, smooth
from kanoclip.train.nano.scenes.objects import THINGS, Silhouette
from kanoclip.train.nano.scenes.photos import OBJECT, SURFACE, Photos

GOOD = "good"
MISSING = "missing part"
TRANSPLANT = "foreign texture"
_VISIBLE = 0.35
"""Share of a change from which a pixel belongs to the mask."""
_LEAST = 6
"""Pixels; an image whose mask came out smaller is drawn again, since nobody could see its defect."""
_GOOD = ("normal", "flawless", "perfect", "undamaged", "good")
_BAD = ("abnormal", "defective", "damaged", "faulty", "broken")
_OPENINGS = ("a photo of", "a close-up photo of", "an image of", "an image of")
_MISSING_WORDS = "a missing part"
_TRANSPLANT_WORDS = "a foreign texture in it"
CAPTION_TEXTS = (*_GOOD, *_BAD, *_OPENINGS, _MISSING_WORDS, _TRANSPLANT_WORDS, "a an with without defect")
"""What captions say beside the names of subjects and defects."""


@dataclass(frozen=True)
class Scene:
    """A generated image.

    Attributes:
        image: uint8 [size, size, 3], BGR.
        mask: Pixels that the defect changed, bool [size, size].
        subject: Name of the material or thing.
        words: The subject for captions.
        defect: Name of the defect, `good` for none.
        caption: Subject and state in a sentence.
    """

    image: Image
    mask: npt.NDArray[np.bool_]
    subject: str
    words: str
    defect: str
    caption: str


@dataclass(frozen=True)
class Recipe:
    """What may appear.

    Attributes:
        size: Side of the images in pixels, at least 64.
        materials: Names of `MATERIALS`.
        things: Names of `THINGS`.
        defects: Names of `DEFECTS`, `MISSING` and `TRANSPLANT`.
        anomalous: Share of images with a defect.
        photographed: Share of surfaces and grounds that are taken from photographs, where there are any.
        whole: Share of images that are whole photographs, where there are any.
    """

    size: int = 256
    materials: tuple[str, ...] = tuple(MATERIALS)
    things: tuple[str, ...] = tuple(THINGS)
    defects: tuple[str, ...] = (*DEFECTS, MISSING, TRANSPLANT)
    anomalous: float = 0.6
    photographed: float = 0.4
    whole: float = 0.5

    def __post_init__(self) -> None:
        """Refuses images too small for their details.

        Raises:
            TrainingError: The size is below 64 pixels.
        """
        if self.size < 64:
            raise TrainingError(f"generated images of {self.size} pixels show nothing: 64 is the least")


def generate(recipe: Recipe, seed: int, index: int, photos: Photos | None = None) -> Scene:
    """Image `index` of the endless sequence that a recipe, a seed and photographs stand for."""
    for attempt in range(50):
        rng = np.random.default_rng((seed, index, attempt))
        scene = _draw(rng, recipe, photos)
        if scene is not None:
            return scene
    raise AssertionError("50 images in a row without a visible defect")


def _draw(rng: Rng, recipe: Recipe, photos: Photos | None) -> Scene | None:
    if photos is not None and rng.random() < recipe.whole:
        return _photograph(rng, recipe, photos)
    size = recipe.size
    subject = str(rng.choice([*recipe.materials, *recipe.things]))
    on_ground = subject in recipe.things
    taken = photos if photos is not None and rng.random() < recipe.photographed else None
    words = (THINGS[subject] if on_ground else MATERIALS[subject]).words
    if on_ground:
        image, region, ground = _place(rng, subject, size, taken)
    elif taken is not None:
        image = taken.paint(rng, size)
        subject = words = SURFACE
        region, ground = np.ones((size, size), np.float32), image
    else:
        image = MATERIALS[subject].paint(rng, size)
        region, ground = np.ones((size, size), np.float32), image
    ends = not on_ground and rng.random() < 0.35
    if ends:
        image, region, ground = end_of_surface(rng, image)
    image = distract(rng, image, region)
    if not on_ground and rng.random() < 0.15:
        image, region = intrude(rng, image, region)
    defect = str(rng.choice(recipe.defects)) if rng.random() < recipe.anomalous else GOOD
    if defect == MISSING and not (on_ground or ends):
        return None
    if defect == MISSING:
        image, strength = _break_off(rng, image, ground, region)
    else:
        image, strength = _damage(rng, defect, image, region, photos)
    image, strength = pose(rng, image, strength, upright=rng.random() < 0.5)
    image = light(rng, image)
    mask = strength > _VISIBLE
    if defect != GOOD and int(mask.sum()) < _LEAST * (size / 256) ** 2:
        return None
    return Scene(shoot(rng, image), mask, subject, words, defect, _caption(rng, words, defect))


def _photograph(rng: Rng, recipe: Recipe, photos: Photos) -> Scene | None:
    """A whole photograph, as it is or with a defect in it: what real images hold that is no defect."""
    size = recipe.size
    image = photos.whole(rng, size)
    region = np.ones((size, size), np.float32)
    possible = [name for name in recipe.defects if name != MISSING]
    defect = str(rng.choice(possible)) if possible and rng.random() < recipe.anomalous else GOOD
    image, strength = _damage(rng, defect, image, region, photos)
    if rng.random() < 0.3:
        image, strength = pose(rng, image, strength, upright=True)
    if rng.random() < 0.4:
        image = light(rng, image)
    mask = strength > _VISIBLE
    if defect != GOOD and int(mask.sum()) < _LEAST * (size / 256) ** 2:
        return None
    taken = shoot(rng, image) if rng.random() < 0.6 else np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    return Scene(taken, mask, OBJECT, OBJECT, defect, _caption(rng, OBJECT, defect))


def _damage(rng: Rng, defect: str, image: Paint, region: Field, photos: Photos | None) -> tuple[Paint, Field]:
    """The image with a defect of a kind, now and then with two, and its strength; `GOOD` changes nothing."""
    strength = np.zeros(region.shape, np.float32)
    if defect == GOOD:
        return image, strength
    for _ in range(1 + (rng.random() < 0.15)):
        if defect == TRANSPLANT:
            image, more = _transplant(rng, image, region, photos)
        else:
            image, more = DEFECTS[defect].apply(rng, image, region)
        strength = np.maximum(strength, more)
    return image, strength


def _transplant(rng: Rng, image: Paint, region: Field, photos: Photos | None) -> tuple[Paint, Field]:
    """Another surface where this one should be, in a blot or in fractal islands (DRAEM, Zavrtanik et al. 2021)."""
    size = image.shape[0]
    if photos is not None:
        other = photos.paint(rng, size)
    else:
        other = MATERIALS[str(rng.choice(list(MATERIALS)))].paint(rng, size)
    if rng.random() < 0.5:
        strength = blob(rng, region, size * rng.uniform(0.02, 0.15))
    else:
        field = fractal(rng, size, rng.uniform(2, 8), 3)
        strength = np.clip((field - rng.uniform(0.7, 0.85)) * 20, 0, 1).astype(np.float32) * region
    mean = image.mean(axis=(0, 1), dtype=np.float32)
    if rng.random() < 0.5:  # in the image's own tone, so that colour alone does not give it away
        other = other - other.mean(axis=(0, 1), dtype=np.float32) + mean
    opacity = np.float32(rng.uniform(0.4, 1.0))
    changed = np.clip(np.abs(other - image).max(axis=2) * opacity * 8, 0, 1).astype(np.float32)
    return blend(image, strength * opacity, np.asarray(other, np.float32)), strength * np.maximum(changed, 0.3)


def _place(rng: Rng, name: str, size: int, photos: Photos | None) -> tuple[Paint, Silhouette, Paint]:
    """A thing on a ground: (image, where the thing is, the bare ground)."""
    if THINGS[name].dark_ground or rng.random() < 0.6:
        ground = np.empty((size, size, 3), np.float32)
        ground[:] = rng.uniform(0, 0.06) if THINGS[name].dark_ground else any_colour(rng)
        ground *= 1 + (smooth(rng, size, 2)[..., None] - 0.5) * np.float32(rng.uniform(0, 0.3))
    elif photos is not None:
        ground = photos.paint(rng, size)
    else:
        ground = MATERIALS[str(rng.choice(list(MATERIALS)))].paint(rng, size)
    look, shape = THINGS[name].paint(rng, size)
    if not THINGS[name].dark_ground and abs(float(look[shape > 0.5].mean()) - float(ground.mean())) < 0.12:
        ground = ground * np.float32(0.35) if float(ground.mean()) > 0.4 else ground + np.float32(0.4)
    shift = tuple(int(v) for v in rng.integers(2, 8, 2))
    shadow = np.asarray(cv2.GaussianBlur(np.roll(shape, shift, (0, 1)), (0, 0), rng.uniform(2, 8)), np.float32)
    floor = np.asarray(ground * (1 - rng.uniform(0, 0.6) * shadow[..., None]), np.float32)
    return floor + shape[..., None] * (look - floor), shape, floor


def _break_off(rng: Rng, image: Paint, ground: Paint, region: Field) -> tuple[Paint, Field]:
    """A piece of the border of a thing or surface gone, the ground to be seen in its place."""
    inner = np.asarray(cv2.erode(region, np.ones((9, 9), np.uint8)), np.float32)
    rows, columns = np.nonzero(region - inner > 0.5)
    if rows.size == 0:
        return image, np.zeros_like(region)
    pick = int(rng.integers(rows.size))
    spot = np.zeros_like(region)
    spot[rows[pick], columns[pick]] = 1
    strength = _around(rng, spot, region.shape[0] * rng.uniform(0.04, 0.13)) * region
    return image + strength[..., None] * (ground - image), strength


def _around(rng: Rng, spot: Field, radius: float) -> Field:
    distance = cv2.distanceTransform((spot == 0).astype(np.uint8), cv2.DIST_L2, 3)
    ragged = 1 + (smooth(rng, spot.shape[0], 24) - 0.5)
    return np.clip(ragged * radius - np.asarray(distance, np.float32) + 0.5, 0, 1).astype(np.float32)


def _caption(rng: Rng, words: str, defect: str) -> str:
    photo = str(rng.choice(_OPENINGS))
    if defect == GOOD:
        state = str(rng.choice(_GOOD))
        return f"{photo} a {state} {words}" if rng.random() < 0.7 else f"{photo} a {words} without defect"
    if rng.random() < 0.25:
        state = str(rng.choice(_BAD))
        return f"{photo} {'an' if state[0] in 'aeiou' else 'a'} {state} {words}"
    special = {MISSING: _MISSING_WORDS, TRANSPLANT: _TRANSPLANT_WORDS}
    return f"{photo} a {words} with {special[defect] if defect in special else DEFECTS[defect].words}"
