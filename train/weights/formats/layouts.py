"""Which names a file's tensors have, and open_clip's names for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from kanoclip.train.weights.formats.archive import ArchiveError
from kanoclip.train.weights.formats.files import RawWeights

State = dict[str, Tensor]

_BLOCK_PARTS = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_TIMM_PARTS = {"layer_norm1": "norm1", "layer_norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_LAYER = re.compile(r"^(vision|text)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$")


def to_open_clip(raw: RawWeights) -> tuple[State, str]:
    """Recognises a layout.

    Returns:
        The tensors under open_clip's names, and the layout's name.

    Raises:
        ArchiveError: It is no CLIP; the message says what it is and what would fit.
    """
    names = raw.tensors.keys()
    _refuse_what_is_no_clip(set(names))
    if "vision_model.head.probe" in names:
        return _converted(raw.tensors, _siglip_names, "Hugging Face SiglipModel"), "Hugging Face SiglipModel"
    if "vision_model.embeddings.patch_embedding.weight" in names:
        return _converted(raw.tensors, _clip_names, "Hugging Face CLIPModel"), "Hugging Face CLIPModel"
    extras = {"input_resolution", "context_length", "vocab_size"}
    state = {name: tensor for name, tensor in raw.tensors.items() if name not in extras}
    if raw.script:
        return state, "OpenAI TorchScript"
    if extras <= names:
        return state, "OpenAI"
    return state, "open_clip"


def for_custom_text(state: State) -> State:
    """open_clip's names of a model whose text tower is a module of its own: `text.` in front of its tensors."""
    if any(name.startswith("text.") for name in state):
        return state
    apart = ("visual.", "logit_scale", "logit_bias")
    return {name if name.startswith(apart) else f"text.{name}": tensor for name, tensor in state.items()}


def for_plain_text(state: State) -> State:
    """The inverse of `for_custom_text`."""
    return {name.removeprefix("text."): tensor for name, tensor in state.items()}


def _refuse_what_is_no_clip(names: set[str]) -> None:
    prompts = ("ctx_pos", "ctx_neg", "compound_prompts_text")
    if any(name.removeprefix("prompt_learner.").startswith(prompts) for name in names):
        raise ArchiveError(
            "is a prompt checkpoint of AnomalyCLIP: learned prompts, no CLIP; --weights wants the CLIP that they were "
            "learned on (ViT-L-14-336px.pt, --backbone vit-l-14-336), and kanoclip-train learns prompts of its own"
        )
    if "prompts.context" in names or any(name.startswith("head.stages.") for name in names):
        raise ArchiveError("is a checkpoint of kanoclip-train: pass it with --checkpoint")
    if "image_encoder.model.patch_emb.0.block.conv.weight" in names or any(
        n.startswith("image_encoder.") for n in names
    ):
        raise ArchiveError("has Apple's own names: take open_clip_model.safetensors of its OpenCLIP repository")
    if "visual.attn_pool.probe" in names:
        raise ArchiveError(
            "has Meta's own names of PE-Core: take open_clip_model.safetensors of https://huggingface.co/timm/PE-Core-..."
        )
    image = any("visual." in name or "vision_model." in name for name in names)
    text = any("token_embedding" in name for name in names)
    if image != text:
        raise ArchiveError(f"holds {'an image' if image else 'a text'} tower alone: a whole CLIP is needed")


def _converted(tensors: State, rename: Callable[[str], str | None], layout: str) -> State:
    """Renames what has a counterpart, joins Q, K and V, and turns the projections."""
    state: State = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith("position_ids"):
            continue
        layer = _LAYER.match(name)
        if layer is not None and (joined := re.fullmatch(r"self_attn\.([qkv])_proj", layer[3])):
            target = rename(f"{layer[1]}_model.encoder.layers.{layer[2]}.self_attn.qkv.{layer[4]}")
            parts.setdefault(str(target), {})[joined[1]] = tensor
            continue
        renamed = rename(name)
        if renamed is None:
            raise ArchiveError(f"holds {name}, which a {layout} does not have: it is of another model")
        turned = name in ("visual_projection.weight", "text_projection.weight")
        state[renamed] = tensor.T if turned else tensor[None] if renamed.endswith("pos_embed") else tensor
    for target, three in parts.items():
        if set(three) != set("qkv"):
            raise ArchiveError(
                f"lacks a part of {target}: of q, k and v there {'is' if len(three) == 1 else 'are'} only "
                f"{', '.join(sorted(three))}"
            )
        shapes = [list(three[part].shape) for part in "qkv"]
        if shapes[0] != shapes[1] or shapes[0] != shapes[2] or not shapes[0]:
            raise ArchiveError(f"holds q, k and v of {target} in shapes that do not fit together: {shapes}")
        state[target] = torch.cat([three[part] for part in "qkv"])
    for name in [name for name in state if name.startswith("in_proj")]:
        kind, tensor = name.removeprefix("in_proj_"), state.pop(name)
        width = len(tensor) // 3
        state[f"visual.trunk.attn_pool.q.{kind}"] = tensor[:width]
        state[f"visual.trunk.attn_pool.kv.{kind}"] = tensor[width:]
    return state


def _clip_names(name: str) -> str | None:
    fixed = {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "visual_projection.weight": "visual.proj",
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_projection.weight": "text_projection",
        "logit_scale": "logit_scale",
    }
    prefixes = {
        "vision_model.pre_layrnorm.": "visual.ln_pre.",
        "vision_model.post_layernorm.": "visual.ln_post.",
        "text_model.final_layer_norm.": "ln_final.",
    }
    blocks = {"vision": "visual.transformer.resblocks", "text": "transformer.resblocks"}
    return _renamed(name, fixed, prefixes, blocks)


def _siglip_names(name: str) -> str | None:
    fixed = {
        "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
        "vision_model.head.probe": "visual.trunk.attn_pool.latent",
        "vision_model.head.attention.in_proj_weight": "in_proj_weight",
        "vision_model.head.attention.in_proj_bias": "in_proj_bias",
        "text_model.embeddings.token_embedding.weight": "text.token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "text.positional_embedding",
        "logit_scale": "logit_scale",
        "logit_bias": "logit_bias",
    }
    prefixes = {
        "vision_model.embeddings.patch_embedding.": "visual.trunk.patch_embed.proj.",
        "vision_model.post_layernorm.": "visual.trunk.norm.",
        "vision_model.head.attention.out_proj.": "visual.trunk.attn_pool.proj.",
        "vision_model.head.layernorm.": "visual.trunk.attn_pool.norm.",
        "vision_model.head.mlp.": "visual.trunk.attn_pool.mlp.",
        "text_model.final_layer_norm.": "text.ln_final.",
        "text_model.head.": "text.text_projection.",
    }
    blocks = {"vision": "visual.trunk.blocks", "text": "text.transformer.resblocks"}
    return _renamed(name, fixed, prefixes, blocks)


def _renamed(name: str, fixed: Mapping[str, str], prefixes: Mapping[str, str], blocks: dict[str, str]) -> str | None:
    """A tensor's name in open_clip's words: as a whole, by its beginning, or as one of a block; None for none."""
    if name in fixed:
        return fixed[name]
    for theirs, ours in prefixes.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return _block_name(name, blocks)


def _block_name(name: str, towers: dict[str, str]) -> str | None:
    """A tensor of a block, in open_clip's or in timm's words."""
    layer = _LAYER.match(name)
    if layer is None:
        return None
    tower, number, part, kind = layer.groups()
    block = f"{towers[tower]}.{number}"
    timm = towers[tower].endswith("trunk.blocks")
    if part == "self_attn.qkv":
        return f"{block}.attn.qkv.{kind}" if timm else f"{block}.attn.in_proj_{kind}"
    if part == "self_attn.out_proj":
        return f"{block}.attn.proj.{kind}" if timm else f"{block}.attn.out_proj.{kind}"
    known = _TIMM_PARTS if timm else _BLOCK_PARTS
    return f"{block}.{known[part]}.{kind}" if part in known else None
