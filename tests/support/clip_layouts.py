"""The same weights written as people have them: OpenAI's TorchScript, Hugging Face's names, wrappers, safetensors."""

from __future__ import annotations

import torch
from torch import nn


def hugging_face_clip(state):
    """open_clip's names -> `transformers.CLIPModel`'s: q, k and v apart, projections turned, an index beside them."""
    out = {
        "vision_model.embeddings.class_embedding": state["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": state["visual.positional_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(len(state["visual.positional_embedding"]))[None],
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
        "text_model.embeddings.token_embedding.weight": state["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["positional_embedding"],
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "logit_scale": state["logit_scale"],
    }
    norms = {"visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm"}
    for ours, theirs in {**norms, "ln_final": "text_model.final_layer_norm"}.items():
        out |= {f"{theirs}.{kind}": state[f"{ours}.{kind}"] for kind in ("weight", "bias")}
    for ours, theirs in {
        "visual.transformer.resblocks.": "vision_model",
        "transformer.resblocks.": "text_model",
    }.items():
        out |= _layers(state, ours, f"{theirs}.encoder.layers", "attn.in_proj_", "attn.out_proj", _OURS)
    return out


def hugging_face_siglip(state):
    """open_clip's names of a SigLIP with a trunk of timm -> `transformers.SiglipModel`'s."""
    trunk, pool = "visual.trunk.", "visual.trunk.attn_pool."
    out = {
        "vision_model.embeddings.position_embedding.weight": state[f"{trunk}pos_embed"][0],
        "vision_model.head.probe": state[f"{pool}latent"],
        "text_model.embeddings.token_embedding.weight": state["text.token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": state["text.positional_embedding"],
        "logit_scale": state["logit_scale"].reshape(1),
        "logit_bias": state["logit_bias"].reshape(1),
    }
    for kind in ("weight", "bias"):
        joined = torch.cat([state[f"{pool}q.{kind}"], state[f"{pool}kv.{kind}"]])
        out[f"vision_model.head.attention.in_proj_{kind}"] = joined
        for ours, theirs in {
            f"{trunk}patch_embed.proj": "vision_model.embeddings.patch_embedding",
            f"{trunk}norm": "vision_model.post_layernorm",
            f"{pool}proj": "vision_model.head.attention.out_proj",
            f"{pool}norm": "vision_model.head.layernorm",
            f"{pool}mlp.fc1": "vision_model.head.mlp.fc1",
            f"{pool}mlp.fc2": "vision_model.head.mlp.fc2",
            "text.ln_final": "text_model.final_layer_norm",
            "text.text_projection": "text_model.head",
        }.items():
            out[f"{theirs}.{kind}"] = state[f"{ours}.{kind}"]
    out |= _layers(state, "visual.trunk.blocks.", "vision_model.encoder.layers", "attn.qkv.", "attn.proj", _TIMM)
    text = "text.transformer.resblocks."
    return out | _layers(state, text, "text_model.encoder.layers", "attn.in_proj_", "attn.out_proj", _OURS)


_OURS = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
_TIMM = {"norm1": "layer_norm1", "norm2": "layer_norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def _layers(state, ours, theirs, joined, out_proj, parts):
    found = {}
    for number in {name.removeprefix(ours).split(".")[0] for name in state if name.startswith(ours)}:
        block, target = f"{ours}{number}.", f"{theirs}.{number}"
        for kind in ("weight", "bias"):
            three = state[f"{block}{joined}{kind}"].chunk(3)
            found |= {f"{target}.self_attn.{n}_proj.{kind}": t.contiguous() for n, t in zip("qkv", three, strict=True)}
            found[f"{target}.self_attn.out_proj.{kind}"] = state[f"{block}{out_proj}.{kind}"]
            found |= {f"{target}.{name}.{kind}": state[f"{block}{part}.{kind}"] for part, name in parts.items()}
    return found


class Tree(nn.Module):
    """A module that holds a state dict under its own names."""

    def __init__(self, state):
        super().__init__()
        below = {}
        for name, tensor in state.items():
            first, dot, rest = name.partition(".")
            if dot:
                below.setdefault(first, {})[rest] = tensor
            else:
                self.register_parameter(first, nn.Parameter(tensor, requires_grad=False))
        for name, inner in below.items():
            self.add_module(name, Tree(inner))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def save_torchscript(state, path):
    """As OpenAI publishes its models: traced, with three numbers beside the weights."""
    tree = Tree(state)
    for name, value in (("input_resolution", 48), ("context_length", 77), ("vocab_size", 49408)):
        tree.register_buffer(name, torch.tensor(value))
    torch.jit.save(torch.jit.trace(tree, torch.zeros(1)), str(path))
