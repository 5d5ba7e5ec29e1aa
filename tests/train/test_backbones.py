"""The registry, and towers of its shapes."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU

from kanoclip.runtime.errors import CheckpointError
from kanoclip.train.backbones import REGISTRY, get_backbone
from kanoclip.train.model.text.encoder import TextEncoder
from kanoclip.train.model.towers.clip_vv import CLIP_PIXELS, ClipVV, Normalisation
from kanoclip.train.weights.load import load_clip

SHAPES = {  # blocks, width, joint width, patch, native size, text width
    "nano": (4, 128, 128, 16, 256, 192),
    "vit-l-14-336": (24, 1024, 768, 14, 336, 768),
    "vit-b-16": (12, 768, 512, 16, 224, 512),
    "vit-l-14": (24, 1024, 768, 14, 224, 768),
    "vit-b-16-datacomp": (12, 768, 512, 16, 224, 512),
    "vit-b-32-256": (12, 768, 512, 32, 256, 512),
    "vit-b-16-plus-240": (12, 896, 640, 16, 240, 640),
    "siglip2-b-16": (12, 768, 768, 16, 224, 768),
    "siglip2-l-16-256": (24, 1024, 1024, 16, 256, 1024),
    "pe-core-t-16-384": (12, 192, 512, 16, 384, 512),
    "pe-core-s-16-384": (12, 384, 512, 16, 384, 512),
    "pe-core-b-16": (12, 768, 1024, 16, 224, 1024),
    "pe-core-l-14-336": (24, 1024, 1024, 14, 336, 1024),
    "eva02-b-16": (12, 768, 512, 16, 224, 512),
    "eva02-l-14-336": (24, 1024, 768, 14, 336, 768),
    "mobileclip2-l-14": (24, 1024, 768, 14, 224, 768),
    "tinyclip-vit-8m-16": (10, 256, 512, 16, 224, 256),
    "random-tiny": (4, 64, 64, 8, 48, 64),
}
SAME_SHAPE = {  # other weights of a shape that is above
    "vit-b-16-laion2b": "vit-b-16-datacomp",
    "vit-l-14-datacomp": "vit-l-14",
    "vit-l-14-laion2b": "vit-l-14",
    "dfn2b-b-16": "vit-b-16",
    "dfn2b-l-14": "vit-l-14",
}
OPENAI = ["vit-l-14-336", "vit-b-16", "vit-l-14"]
TINY = get_backbone("random-tiny")


def build_on_meta(name: str) -> open_clip.CLIP:
    """Shapes only: ViT-L would take 1.7 GB."""
    with torch.device("meta"):
        return load_clip(get_backbone(name), "none")[0]


@pytest.mark.parametrize("name", SHAPES)
def test_architectures_build_and_the_tower_takes_them(name):
    clip = build_on_meta(name)
    blocks, width, joint, patch, size, text_width = SHAPES[name]
    text = TextEncoder(clip)
    assert (text.width, text.joint_width) == (text_width, joint)
    assert get_backbone(name).native_size == (size, size)
    tower = ClipVV(clip.visual, (size, size))
    assert (tower.taps[-1], tower.width, tower.joint_width) == (blocks, width, joint)
    assert len(tower.blocks) == blocks - (tower.pool is None)
    features = tower(torch.empty(2, 3, size, size, device="meta"))
    assert [tuple(stage.shape) for stage in features.patches] == [(2, (size // patch) ** 2, joint)] * 4
    assert features.global_token.shape == (2, joint)
    # QuickGELU in every block of both towers of OpenAI's, and nowhere else.
    kinds = {type(module) for key, module in clip.named_modules() if key.endswith(("mlp.gelu", "mlp.act"))}
    assert (QuickGELU in kinds) == (name in OPENAI) and len(kinds) == 1 + (name.startswith("eva02"))


def test_shapes_lists_the_whole_registry():
    assert {*SHAPES, *SAME_SHAPE} == set(REGISTRY)
    assert all(name == entry.name and entry.about for name, entry in REGISTRY.items())
    for name, other in SAME_SHAPE.items():
        mine, its = get_backbone(name).architecture(), get_backbone(other).architecture()
        assert {**mine, "quick_gelu": None} == {**its, "quick_gelu": None}


def test_every_published_line_has_its_pixels_and_its_activation():
    """Taken from open_clip's own table, so that a mistake in ours shows."""
    for entry in REGISTRY.values():
        if entry.tag is None:
            continue
        known = open_clip.pretrained.get_pretrained_cfg(entry.open_clip_name, entry.tag)
        assert known["hf_hub"] and bool(known.get("quick_gelu", False)) == entry.quick_gelu, entry.name
        assert entry.normalisation == Normalisation(tuple(known["mean"]), tuple(known["std"]))
    assert get_backbone("siglip2-b-16").normalisation.mean == (0.5, 0.5, 0.5) != CLIP_PIXELS.mean


def test_the_papers_backbone_at_518():
    tower = ClipVV(build_on_meta("vit-l-14-336").visual, (518, 518))
    assert tower.grid == (37, 37) and tower.taps == (6, 12, 18, 24) and tower.vv_start == 6
    assert tower.blocks[0].heads == 16


def test_architecture_is_a_copy():
    get_backbone("vit-b-16").architecture()["vision_cfg"]["layers"] = 1
    get_backbone("nano").architecture()["vision_cfg"]["layers"] = 1
    assert get_backbone("vit-b-16").architecture()["vision_cfg"]["layers"] == 12
    assert get_backbone("nano").architecture()["vision_cfg"]["layers"] == 4


@pytest.mark.parametrize("name", OPENAI)
def test_build_without_quick_gelu_is_refused(monkeypatch, name):
    real = open_clip.CLIP
    monkeypatch.setattr(open_clip, "CLIP", lambda **options: real(**{**options, "quick_gelu": False}))
    with pytest.raises(CheckpointError, match=f"{name}.*QuickGELU"):
        build_on_meta(name)


@pytest.mark.parametrize("tower", ["visual.transformer", "transformer"])
def test_one_block_without_quick_gelu_is_refused(monkeypatch, tower):
    real = open_clip.CLIP

    def build(**options):
        clip = real(**options)
        clip.get_submodule(tower).resblocks[-1].mlp.gelu = torch.nn.GELU()
        return clip

    monkeypatch.setattr(open_clip, "CLIP", build)
    with pytest.raises(CheckpointError, match=f"{tower}.resblocks.11.mlp.gelu"):
        build_on_meta("vit-b-16")


def test_unknown_backbone_lists_the_known_ones():
    with pytest.raises(CheckpointError, match=r"'vit-x'.*nano.*random-tiny"):
        get_backbone("vit-x")
