"""Small image and text towers of every kind that CLIP-VV reads, built by open_clip and timm from their own names."""

from __future__ import annotations

from functools import partial
from unittest import mock

import open_clip
import timm
import torch

TEXT = {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
SIGLIP_TEXT = {
    "context_length": 24,
    "vocab_size": 64,
    "width": 48,
    "heads": 2,
    "layers": 2,
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
    "norm_kwargs": {"eps": 1e-6},
    "act_kwargs": {"approximate": "tanh"},
}
KINDS = {
    "siglip2": ("vit_base_patch16_siglip_224", "map", "none", SIGLIP_TEXT),
    "pe-core": ("vit_pe_core_tiny_patch16_384", "map", None, TEXT),
    "eva02": ("eva02_base_patch16_clip_224", "token", None, TEXT),
    "mobileclip2-l": ("vit_large_patch14_clip_224", "token", None, {**TEXT, "no_causal_mask": True}),
}
"""timm's name, pooling, projection and text tower."""


def architecture(kind, *, size=32, depth=4):
    """open_clip's configuration of a small CLIP of a kind; `timm` beside it has what makes its trunk small."""
    name, pool, proj, text = KINDS[kind]
    width = 48
    vision = {
        "image_size": size,
        "timm_model_name": name,
        "timm_model_pretrained": False,
        "timm_pool": pool,
        "timm_proj": proj,
    }
    # One head of 8 channels would hide an order of pairs that is wrong for wider ones.
    small = {"depth": depth, "embed_dim": width, "num_heads": 3, "img_size": size, "patch_size": 8}
    if kind == "pe-core":
        small["attn_pool_num_heads"] = 4
    shape = {"embed_dim": width if proj == "none" else 64, "vision_cfg": vision, "text_cfg": dict(text)}
    if kind == "siglip2":
        shape["init_logit_bias"] = -10
    return shape, small


def build(kind, **options):
    """A small CLIP of a kind, in eval mode, with the generator's present values."""
    shape, small = architecture(kind, **options)
    with mock.patch.object(timm, "create_model", partial(timm.create_model, **small)):
        return open_clip.CustomTextCLIP(**shape).eval()


def seeded(kind, shake, **options):
    """The same with every parameter moved, reproducibly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return shake(build(kind, **options))


class Letters:
    """A tokenizer for `SIGLIP_TEXT`: a token a letter, 1 at the end, 0 to fill up, no start token."""

    prefix = 0

    def tokenize(self, texts, length):
        rows = [[2 + ord(letter) % 62 for letter in text][: length - 1] for text in texts]
        return torch.tensor([[*row, 1, *[0] * (length - 1 - len(row))] for row in rows])

    def encode(self, text):
        return [2 + ord(letter) % 62 for letter in text]

    def ends(self, ids):
        return (ids == 1).int().argmax(dim=-1)


def model(kind, shake, **options):
    """KAnoCLIP on a small tower of a kind, its head moved from the identity."""
    from kanoclip.train.model.kanoclip import KAnoCLIP, ModelConfig
    from kanoclip.train.model.towers.clip_vv import Normalisation

    clip = seeded(kind, shake)
    own = kind in ("siglip2", "pe-core")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        made = KAnoCLIP(
            clip,
            ModelConfig(kind, options.pop("size", (32, 32)), prompt_length=4, **options),
            tokenizer=Letters() if kind == "siglip2" else None,
            **({"normalisation": Normalisation((0.5,) * 3, (0.5,) * 3)} if own else {}),
        )
    return made
