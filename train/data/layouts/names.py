"""The words that stand for [class] in a prompt, where a category's folder name says too little."""

from __future__ import annotations

CLASS_NAMES: dict[str, dict[str, str]] = {
    "mvtec": {
        "bottle": "bottle",
        "cable": "cable",
        "capsule": "capsule",
        "carpet": "carpet",
        "grid": "metal grid",
        "hazelnut": "hazelnut",
        "leather": "leather",
        "metal_nut": "metal nut",
        "pill": "pill",
        "screw": "screw",
        "tile": "tile",
        "toothbrush": "toothbrush",
        "transistor": "transistor",
        "wood": "wood",
        "zipper": "zipper",
    },
    "visa": {
        "candle": "candle",
        "capsules": "capsules",
        "cashew": "cashew",
        "chewinggum": "chewing gum",
        "fryum": "fryum",
        "macaroni1": "macaroni",
        "macaroni2": "macaroni",
        "pcb1": "printed circuit board",
        "pcb2": "printed circuit board",
        "pcb3": "printed circuit board",
        "pcb4": "printed circuit board",
        "pipe_fryum": "pipe fryum",
    },
    "mpdd": {
        "bracket_black": "black metal bracket",
        "bracket_brown": "brown metal bracket",
        "bracket_white": "white metal bracket",
        "connector": "connector",
        "metal_plate": "metal plate",
        "tubes": "metal tubes",
    },
    "btad": {"01": "round metal part", "02": "wooden surface", "03": "industrial panel"},
    "sdd": {"electrical_commutator": "electrical commutator"},
    "dagm": {f"Class{number}": "textured surface" for number in range(1, 11)},
    "brainmri": {"brain": "brain MRI"},
    "liverct": {"liver": "liver CT"},
    "resc": {"retina": "retinal OCT"},
    "br35h": {"brain": "brain MRI scan"},
    "covid19": {"chest": "chest X-ray"},
    "headct": {"head": "head CT"},
}
"""Dataset -> category -> words. The shipped knowledge base has the same categories and words."""


def words(category: str) -> str:
    """A category's name as words: VisA's are known (`meta.json` files have them too), others lose their underscores."""
    return CLASS_NAMES["visa"].get(category) or " ".join(category.replace("_", " ").split()) or category
