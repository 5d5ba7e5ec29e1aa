"""Text features of the two states: the learnable prompts of eq. 1, and the training-free handcrafted ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.runtime.errors import CheckpointError, SettingsError

STATE_WORDS = (("normal", "perfect"), ("abnormal", "defective"))
"""[Normal] and [Abnormal] of eq. 1; state 0 is normal, state 1 abnormal."""

TEMPLATE_STATES = (
    ("a photo of a normal {}", "a photo of a perfect {}"),
    ("a photo of an abnormal {}", "a photo of a defective {}"),
)
"""The fixed prompts that the paper tried before KnPL (section 2.2): eq. 1 with words in place of the vectors."""

_SHOWN = 40

HANDCRAFTED_STATES = (
    (
        "{}",
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
    ),
    ("damaged {}", "{} with flaw", "{} with defect", "{} with damage"),
)
"""WinCLIP's state level (its table of compositional prompts)."""

HANDCRAFTED_TEMPLATES = (
    "a cropped photo of the {}.",
    "a cropped photo of a {}.",
    "a close-up photo of a {}.",
    "a close-up photo of the {}.",
    "a bright photo of a {}.",
    "a bright photo of the {}.",
    "a dark photo of a {}.",
    "a dark photo of the {}.",
    "a jpeg corrupted photo of a {}.",
    "a jpeg corrupted photo of the {}.",
    "a blurry photo of the {}.",
    "a blurry photo of a {}.",
    "a photo of a {}.",
    "a photo of the {}.",
    "a photo of a small {}.",
    "a photo of the small {}.",
    "a photo of a large {}.",
    "a photo of the large {}.",
    "a photo of the {} for visual inspection.",
    "a photo of a {} for visual inspection.",
    "a photo of the {} for anomaly detection.",
    "a photo of a {} for anomaly detection.",
)
"""WinCLIP's template level."""

LEARNED_STATES = tuple(tuple(f"{word} {{}}" for word in words) for words in STATE_WORDS)
"""What stands behind the learned vectors."""


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


class LearnablePrompts(nn.Module):
    """`[N_1]..[N_K][normal|perfect][class]` and `[A_1]..[A_K][abnormal|defective][class]` (eq. 1).

    The K vectors of a state are shared by its words and by all classes.
    """

    def __init__(self, width: int, length: int) -> None:
        """Draws K = `length` vectors of the text tower's width for each state from N(0, 0.02)."""
        super().__init__()
        self.context = nn.Parameter(torch.empty(2, length, width))
        nn.init.normal_(self.context, std=0.02)

    def forward(self, encoder: TextEncoder, classes: Sequence[str]) -> Tensor:
        """F_text = [F_n, F_a] of every class.

        Args:
            encoder: The frozen text tower.
            classes: Class names; any text.

        Returns:
            [classes, 2, C]: per state the mean of its words' normalised features, normalised again.
        """
        length = self.context.shape[1]
        states = []
        for state, words in enumerate(STATE_WORDS):
            texts = [text.replace("{}", name) for name in classes for text in LEARNED_STATES[state]]
            ids = encoder.tokenize(texts, encoder.context_length - length)
            words_in, prefix = encoder.embed(ids), encoder.tokenizer.prefix
            context = self.context[state].expand(len(ids), -1, -1)
            prompt = torch.cat([words_in[:, :prefix], context, words_in[:, prefix:]], dim=1)
            features = encoder(prompt, encoder.tokenizer.ends(ids) + length)
            states.append(F.normalize(features.unflatten(0, (len(classes), len(words))).mean(1), dim=-1))
        return torch.stack(states, dim=1)


def check_classes(
    encoder: TextEncoder, classes: Sequence[str], states: Sequence[Sequence[str]], length: int | None = None
) -> None:
    """Refuses class names that the text tower would see cut, or that are one to it.

    Args:
        encoder: The text tower.
        classes: Class names.
        states: The prompts of each state, `{}` for the class.
        length: Most tokens a prompt may have, None for the context length.

    Raises:
        SettingsError: A name is too long for a prompt, says nothing to the tower, or two are the same to it.
    """
    room = (length or encoder.context_length) - 1 - encoder.tokenizer.prefix  # without start and end
    tokens = encoder.tokenizer.encode
    known: dict[tuple[int, ...], str] = {}
    for name in classes:
        own = tuple(tokens(name))
        if not own:
            raise SettingsError(f"class {name!r} has no word that the text encoder knows: name it otherwise")
        longest = max(len(tokens(text.replace("{}", name))) for texts in states for text in texts)
        if longest > room:
            shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
            raise SettingsError(
                f"class {shown!r} is too long: a prompt with it has {longest} tokens, of which the text encoder sees "
                f"{room}; name it in at most {max(1, len(own) - (longest - room))} tokens (words, parts of words)"
            )
        if own in known:
            raise SettingsError(f"classes {known[own]!r} and {name!r} are the same to the text encoder: leave one out")
        known[own] = name


def handcrafted_features(encoder: TextEncoder, classes: Sequence[str]) -> Tensor:
    """WinCLIP's compositional prompt ensemble, which needs no training.

    Returns:
        [classes, 2, C]: per state the mean of all its prompts' normalised features, normalised again.
    """
    return _fixed_features(encoder, classes, handcrafted_states())


def handcrafted_states() -> list[list[str]]:
    """WinCLIP's prompts of each state, `{}` for the class."""
    return [
        [template.replace("{}", phrase) for phrase in phrases for template in HANDCRAFTED_TEMPLATES]
        for phrases in HANDCRAFTED_STATES
    ]


def template_features(encoder: TextEncoder, classes: Sequence[str]) -> Tensor:
    """`a photo of a normal [class]` against `a photo of an abnormal [class]`: prompts that do not learn.

    Returns:
        [classes, 2, C]: per state the mean of its prompts' normalised features, normalised again.
    """
    return _fixed_features(encoder, classes, TEMPLATE_STATES)


def _fixed_features(encoder: TextEncoder, classes: Sequence[str], states: Sequence[Sequence[str]]) -> Tensor:
    rows = []
    for name in classes:
        means = [encoder.encode([text.replace("{}", name) for text in texts]).mean(0) for texts in states]
        rows.append(F.normalize(torch.stack(means), dim=-1))
    return torch.stack(rows)
