"""Text features of the two states: the learnable prompts of eq. 1, and the training-free handcrafted ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.runtime.errors import SettingsError
from kanoclip.train.model.text.encoder import TextEncoder

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
