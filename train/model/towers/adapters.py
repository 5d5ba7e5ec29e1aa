"""An open_clip model's image tower, taken apart for CLIP-VV; what does not suit it is refused with the reason."""

from __future__ import annotations

import open_clip
from open_clip.timm_model import TimmModel
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmVit
from torch import nn

from kanoclip.train.model.towers.parts import BlockParts, FeatureParts, TokenParts, TowerAdapter, refuse, unsuited
from kanoclip.train.model.towers.timm_towers import EvaTower, TimmTower


def adapt(visual: nn.Module) -> TowerAdapter:
    """Takes an image tower apart.

    Args:
        visual: `visual` of an open_clip model.

    Raises:
        CheckpointError: V-V attention cannot be had of it; the message says why.
    """
    if isinstance(visual, open_clip.transformer.VisionTransformer):
        return OpenClipTower(visual)
    if isinstance(visual, TimmModel):
        trunk = visual.trunk
        known = isinstance(trunk, Eva | TimmVit)
        refuse(not known, f"{type(trunk).__name__} mixes its patches by convolutions, which have no V to attend to")
        refuse(len(visual.head) > 0, "it has a projection of open_clip's behind timm's own head")
        return EvaTower(trunk) if isinstance(trunk, Eva) else TimmTower(trunk)
    raise unsuited(f"{type(visual).__name__} has no transformer blocks over patches")


class OpenClipTower:
    """A ViT of open_clip's own: OpenAI, LAION, DataComp, DFN, TinyCLIP; and nano, whose `conv1` is a stem."""

    def __init__(self, visual: open_clip.transformer.VisionTransformer) -> None:
        """Looks the tower through.

        Raises:
            CheckpointError: It is no plain CLIP ViT.
        """
        refuse(visual.attn_pool is not None, "its pooling head is CoCa's")
        refuse(visual.pool_type != "tok" or visual.final_ln_after_pool, "its global feature is no class token")
        refuse(not isinstance(visual.patch_dropout, nn.Identity), "it drops patches")
        refuse(not isinstance(visual.ln_pre, nn.LayerNorm), "it has no layer norm before the blocks")
        for block in visual.transformer.resblocks:
            plain = isinstance(block, open_clip.transformer.ResidualAttentionBlock)
            refuse(not plain, "its blocks are not plain pre-norm ones")
            scaled = not (isinstance(block.ls_1, nn.Identity) and isinstance(block.ls_2, nn.Identity))
            refuse(scaled, "its blocks use layer scale, which CLIP-VV does not implement")
        self.visual = visual

    @property
    def tokens(self) -> TokenParts:
        """With a stem, `conv1` is the stem: it stands in the same place of the same state dict."""
        visual = self.visual
        return TokenParts(
            visual.conv1,
            visual.patch_size,
            visual.grid_size,
            visual.class_embedding,
            visual.positional_embedding,
            visual.ln_pre,
        )

    def blocks(self, grid: tuple[int, int]) -> list[BlockParts]:
        """The grid decides nothing."""
        return [open_clip_block(block) for block in self.visual.transformer.resblocks]

    @property
    def feature(self) -> FeatureParts:
        """The class token, projected."""
        return FeatureParts(self.visual.ln_post, None, self.visual.proj)


def open_clip_block(source: nn.Module) -> BlockParts:
    """An open_clip ResidualAttentionBlock."""
    attn, mlp = source.attn, source.mlp
    return BlockParts(
        attn.num_heads,
        source.ln_1,
        attn.in_proj_weight,
        attn.in_proj_bias,
        attn.out_proj,
        source.ln_2,
        mlp.c_fc,
        mlp.gelu,
        mlp.c_proj,
    )
