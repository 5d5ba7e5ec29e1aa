"""The text tower: prompts' embeddings become text features, through open_clip's own modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.runtime.errors import CheckpointError


class Tokenizer(Protocol):
    """Texts to token ids."""

    @property
    def prefix(self) -> int:
        """Tokens that it puts before a text: 1 for CLIP's start token, 0 for Gemma's, which has none."""
        ...

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """Texts -> int64 [N, length], filled up; one too long is cut, its end token in the last place."""
        ...

    def ends(self, ids: Tensor) -> Tensor:
        """Position of each text's end token, int64 [N]."""
        ...

    def encode(self, text: str) -> list[int]:
        """A text's tokens in full, without start and end."""
        ...


class ClipTokenizer:
    """CLIP's own: a start token before each text, and an end token that has the largest id."""

    prefix = 1

    def __init__(self) -> None:
        """Reads the vocabulary that comes with open_clip."""
        self._tokenizer = open_clip.SimpleTokenizer()

    def tokenize(self, texts: Sequence[str], length: int) -> Tensor:
        """As `Tokenizer` says."""
        ids: Tensor = self._tokenizer(list(texts), context_length=length)
        return ids

    def ends(self, ids: Tensor) -> Tensor:
        """As `Tokenizer` says."""
        return ids.argmax(dim=-1)

    def encode(self, text: str) -> list[int]:
        """As `Tokenizer` says."""
        return list(self._tokenizer.encode(text))


class TextEncoder(nn.Module):
    """A frozen text tower, entered at token ids or at word embeddings.

    Attributes:
        causal: Whether a token sees only those before it. Where it does not, a text is read with all that fills it up.
        reads_last: Whether the last place of the context is the text's feature, filled up or not (SigLIP).
    """

    mask: Tensor | None

    def __init__(self, clip: open_clip.CLIP | open_clip.CustomTextCLIP, tokenizer: Tokenizer | None = None) -> None:
        """Takes over (shares) the text side of an open_clip model.

        Args:
            clip: With a text tower of open_clip's own.
            tokenizer: What it was trained with; None for CLIP's own.

        Raises:
            CheckpointError: The text tower is of another kind.
        """
        super().__init__()
        source = clip.text if isinstance(clip, open_clip.CustomTextCLIP) else clip
        if isinstance(clip, open_clip.CustomTextCLIP):
            plain = isinstance(source, open_clip.transformer.TextTransformer)
            if not plain or source.cls_emb is not None or source.use_pad_mask:
                raise CheckpointError("the text tower is not one of open_clip's own without a class token: no prompts")
        self.token_embedding = source.token_embedding
        self.positional_embedding = source.positional_embedding
        self.transformer = source.transformer
        self.ln_final = source.ln_final
        self.text_projection = source.text_projection
        self.register_buffer("mask", source.attn_mask, persistent=False)
        self.causal = source.attn_mask is not None
        kind = source.pool_type if isinstance(clip, open_clip.CustomTextCLIP) else clip.text_pool_type
        if kind not in ("argmax", "last"):
            raise CheckpointError(f"the text tower reads its feature by '{kind}', which is not supported")
        self.reads_last = kind == "last"
        self.tokenizer: Tokenizer = ClipTokenizer() if tokenizer is None else tokenizer
        self.requires_grad_(False)

    @property
    def joint_width(self) -> int:
        """Width C of the joint space."""
        projection = self.text_projection
        return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])

    @property
    def width(self) -> int:
        """Width of the word embeddings."""
        return int(self.token_embedding.embedding_dim)

    @property
    def context_length(self) -> int:
        """Most tokens a prompt may have, start and end included."""
        return int(self.positional_embedding.shape[0])

    def tokenize(self, texts: Sequence[str], length: int | None = None) -> Tensor:
        """Texts -> token ids, int64 [N, length].

        Args:
            texts: Any text; one too long is cut, and the end token takes the last place.
            length: Most tokens a text may have, None for the context length.
        """
        return self.tokenizer.tokenize(texts, self.context_length if length is None else length)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [N, L], on any device -> word embeddings [N, L, width] on the encoder's."""
        embeddings: Tensor = self.token_embedding(ids.to(self.token_embedding.weight.device))
        return embeddings

    def forward(self, embeddings: Tensor, end: Tensor) -> Tensor:
        """Word embeddings -> normalised text features.

        Where attention is causal, only the positions up to the last end token are run: the rest cannot matter.

        Args:
            embeddings: [N, L, width], L at most the context length; all of it where attention is not causal.
            end: Position of each text's end token, int64 [N]; stays on the CPU.

        Returns:
            L2-normalised features [N, C].
        """
        length = int(end.max()) + 1 if self.causal else embeddings.shape[1]
        x = embeddings[:, :length] + self.positional_embedding[:length]
        mask = None if self.mask is None else self.mask[:length, :length]
        x = self.ln_final(self.transformer(x, attn_mask=mask))
        x = x[:, -1] if self.reads_last else x[torch.arange(len(x)), end]
        projection = self.text_projection
        return F.normalize(projection(x) if isinstance(projection, nn.Linear) else x @ projection, dim=-1)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Plain texts -> L2-normalised features [N, C]."""
        ids = self.tokenize(texts)
        return self(self.embed(ids), self.tokenizer.ends(ids))
