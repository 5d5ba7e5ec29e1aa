"""Files of weights that are known by their sha256, and the licences of published weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published file.

    Attributes:
        sha256: Of the file; where only its first digits are published, those.
        title: What it is.
        backbone: Name in the registry that it fits; None where there is none.
        quick_gelu: Whether it was trained with QuickGELU.
    """

    sha256: str
    title: str
    backbone: str | None
    quick_gelu: bool = False


PUBLISHED = (
    # OpenAI's addresses carry the whole sha256; CLIP's own loader checks it.
    Published(
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "OpenAI's ViT-B-16.pt", "vit-b-16", True
    ),
    Published(
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "OpenAI's ViT-L-14.pt", "vit-l-14", True
    ),
    Published(
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
        "OpenAI's ViT-L-14-336px.pt",
        "vit-l-14-336",
        True,
    ),
    Published("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "OpenAI's ViT-B-32.pt", None, True),
    Published("afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762", "OpenAI's RN50.pt", None, True),
    Published("8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599", "OpenAI's RN101.pt", None, True),
    # open_clip's releases carry the first eight digits.
    Published("699c4b84", "open_clip's vit_b_16_plus_240-laion400m_e32-699c4b84.pt", "vit-b-16-plus-240"),
    Published(
        "3d9f86a556cd13acc1aa6cc18495a79ffd1f58b6f17a552400bdefd244c3a92c",
        "TinyCLIP's ViT-8M/16 Text-3M (YFCC15M)",
        "tinyclip-vit-8m-16",
    ),
)


def published(sha256: str) -> Published | None:
    """The published file of a digest; None for one that is not known here."""
    return next((one for one in PUBLISHED if sha256.startswith(one.sha256)), None)


@dataclass(frozen=True)
class Licence:
    """The terms of published weights.

    Attributes:
        name: SPDX's, or the name that `--accept-licence` takes.
        research_only: Products may not use them: an export wants `--accept-licence`.
        note: For people.
    """

    name: str
    research_only: bool = False
    note: str = ""


APACHE = Licence("Apache-2.0")
MIT = Licence("MIT")
APPLE = Licence(
    "Apple-AMLR",
    research_only=True,
    note="Apple's terms for machine-learning research models; read the LICENSE beside the weights",
)
NONE = Licence("none", note="seeded random numbers")
