"""The objectives of nano's pretraining: captions against images, the two states against patches and images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.backbones import get_backbone, seeded_clip
from kanoclip.train.model.stem.stem import ConvStem
from kanoclip.train.model.text.encoder import TextEncoder
from kanoclip.train.model.text.prompts import HANDCRAFTED_STATES, HANDCRAFTED_TEMPLATES, STATE_WORDS
from kanoclip.train.model.towers.clip_vv import ClipVV
from kanoclip.train.nano.scenes.defects import DEFECTS
from kanoclip.train.nano.scenes.materials import MATERIALS
from kanoclip.train.nano.scenes.objects import THINGS
from kanoclip.train.nano.scenes.photos import OBJECT, SURFACE
from kanoclip.train.nano.scenes.scene import CAPTION_TEXTS
from kanoclip.train.nano.tokens import TokenBatch

_TAU = 0.07
_ANY = ("object", "thing", "surface", "product", "part", "zq")
"""Words that any subject goes by now and then: the shipped bundle scores with `object`, and `zq` stands for
every word that the captions do not have, whose tokens are zeros."""
_SHARE = 0.02
"""Share of a cell's pixels from which it is anomalous: a hair across a cell of 16 x 16 pixels is 0.06 of it."""
_NAMED = 0.4
"""Share of the images whose states name the subject itself."""
_STATES = (
    ("normal {}", "abnormal {}"),
    ("perfect {}", "defective {}"),
    ("a photo of a normal {}", "a photo of an abnormal {}"),
    ("a photo of a flawless {}", "a photo of a damaged {}"),
    ("{} without defect", "{} with defect"),
    ("{} without flaw", "{} with flaw"),
    ("{} without damage", "{} with damage"),
    ("unblemished {}", "damaged {}"),
)


@dataclass(frozen=True)
class PretrainConfig:
    """What decides a run.

    Attributes:
        backbone: Registry's name, one with a convolutional stem; what follows the stem is trained from nothing.
        steps: Optimisation steps.
        batch_size: Images in a step.
        lr: Peak learning rate.
        weight_decay: Of matrices; vectors have none.
        warmup_steps: Linear warm-up.
        decay: Share of the steps, the last ones, in which the rate falls to zero.
        dense_weight: Of the pixel objective.
        contrastive_weight: Of the captions' objective.
        seed: Of first values, of the order of the images and of the words.
        tokens: Digest of the drawn images and of the stem.
    """

    backbone: str = "nano"
    steps: int = 1000
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_steps: int = 50
    decay: float = 0.5
    dense_weight: float = 2.0
    contrastive_weight: float = 0.5
    seed: int = 0
    tokens: str = ""


class Vocabulary(nn.Module):
    """Word embeddings of the tokens that captions have, and zeros for all others.

    Of CLIP's 49,408 tokens a few hundred occur; the others would only cost time here, and a random vector for a word
    that was never learned would be noise in every prompt that has it.
    """

    def __init__(self, text: TextEncoder, words: Sequence[str]) -> None:
        """Takes the first values of the words' tokens from the text tower."""
        super().__init__()
        ids = sorted(set(text.tokenize(words).flatten().tolist()))
        index = torch.full((text.token_embedding.num_embeddings,), len(ids))
        index[ids] = torch.arange(len(ids))
        self.register_buffer("ids", torch.tensor(ids), persistent=False)
        self.register_buffer("index", index, persistent=False)
        self.weight = nn.Parameter(text.token_embedding.weight.detach()[ids].clone())

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [N, L] -> word embeddings [N, L, width]."""
        table = torch.cat([self.weight, self.weight.new_zeros(1, self.weight.shape[1])])
        return F.embedding(self.index[ids], table)

    def whole(self) -> Tensor:
        """CLIP's table of embeddings, [tokens, width]."""
        table = self.weight.new_zeros(len(self.index), self.weight.shape[1])
        table[self.ids] = self.weight.detach()
        return table


@dataclass(frozen=True)
class Losses:
    """What a batch gives.

    Attributes:
        total: To be minimised.
        parts: By name, detached.
        cells: Map logits, their mean over the stages, float32 [B, rows, columns].
        scores: Logits of the global token, float32 [B].
        target: Anomalous cells, [B, rows, columns].
    """

    total: Tensor
    parts: dict[str, Tensor]
    cells: Tensor
    scores: Tensor
    target: Tensor


class Pretraining(nn.Module):
    """A CLIP whose tower is read as CLIP-VV reads it, behind a frozen stem, and the objectives."""

    def __init__(self, config: PretrainConfig, stem: dict[str, Tensor]) -> None:
        """Builds the backbone with first values of the seed.

        Args:
            config: Of the run.
            stem: Trunk and statistics, as `stem_statistics` writes them.

        Raises:
            TrainingError: The backbone has no stem.
        """
        super().__init__()
        self.config = config
        backbone = get_backbone(config.backbone)
        self.clip = seeded_clip(backbone, config.seed)
        own = self.clip.visual.conv1
        if not isinstance(own, ConvStem):
            raise TrainingError(f"{config.backbone} has no convolutional stem: pretraining is for nano")
        own.load_state_dict({**own.state_dict(), **stem})
        self.tower = ClipVV(self.clip.visual, backbone.native_size)
        self.text = TextEncoder(self.clip)
        self.vocabulary = Vocabulary(self.text, sorted(_all_words()))
        # Both took the CLIP over frozen; here it is what learns, but for the stem's trunk. The last block's projections
        # are views of the CLIP's own storage, so that its state dict follows.
        self.requires_grad_(True)
        own.trunk.requires_grad_(False)
        self.project = own.token_project
        self.scale = nn.Parameter(torch.tensor(math.log(1 / _TAU)))
        # Texts of the two states point nowhere in particular at first and are slow to agree; a direction of its own
        # lets the tower learn what an anomaly is from the first step, and the texts follow. It is thrown away.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.probe = nn.Parameter(torch.randn(self.clip.visual.proj.shape[1]))

    def forward(self, batch: TokenBatch, step: int) -> Losses:
        """The losses of a batch.

        Args:
            batch: Drawn images.
            step: Decides the words of the two states.
        """
        image = self.tower.encode(self.tower.place(self.project(batch.tokens)))
        global_token = F.normalize(image.global_token.float(), dim=-1)
        labels = batch.anomalous
        # Equal captions are positives of each other.
        unique = sorted(set(batch.captions))
        index = torch.tensor([unique.index(caption) for caption in batch.captions], device=labels.device)
        pairs, subjects = self._states(batch.words, step)
        texts = self._encode([*unique, *pairs])
        logits = global_token @ texts[: len(unique)].T * self.scale.exp().clamp(max=100)
        by_image = F.cross_entropy(logits, index)
        same = (index[None] == torch.arange(len(unique), device=labels.device)[:, None]).float()
        by_text = -(torch.log_softmax(logits.T, dim=-1) * same).sum(1).div(same.sum(1)).mean()
        states = texts[len(unique) :].unflatten(0, (-1, 2))
        direction = (states[:, 1] - states[:, 0])[subjects]
        score = (global_token * direction).sum(-1) / _TAU
        target = (batch.share > _SHARE).float()
        probe = F.normalize(self.probe, dim=0)
        scores, probed = [], []
        for stage in image.patches:
            patches = F.normalize(stage.float(), dim=-1)
            scores.append((patches * direction[:, None]).sum(-1).unflatten(1, self.tower.grid) / _TAU)
            probed.append((patches @ probe).unflatten(1, self.tower.grid) / _TAU)
        by_probe = F.binary_cross_entropy_with_logits(global_token @ probe / _TAU, labels)
        parts = {
            "contrastive": (by_image + by_text) / 2,
            "score": F.binary_cross_entropy_with_logits(score, labels),
            "dense": torch.stack([_segmentation(one, target) for one in scores]).mean(),
            "probe": torch.stack([_segmentation(one, target) for one in probed]).mean() + by_probe * 0.25,
        }
        total = self.config.contrastive_weight * parts["contrastive"] + 0.5 * parts["score"]
        total = total + self.config.dense_weight * (parts["dense"] + parts["probe"])
        cells = torch.stack(scores).mean(0).detach()
        return Losses(total, {name: value.detach() for name, value in parts.items()}, cells, score.detach(), target)

    def _encode(self, texts: Sequence[str]) -> Tensor:
        ids = self.text.tokenize(texts)
        return F.normalize(self.text(self.vocabulary(ids.to(self.scale.device)), ids.argmax(dim=-1)).float(), dim=-1)

    def _states(self, words: Sequence[str], step: int) -> tuple[list[str], Tensor]:
        """Texts of the two states, in pairs, and which pair belongs to each image [B]."""
        rng = np.random.default_rng((self.config.seed, step))
        names = [word if rng.random() < _NAMED else _ANY[int(rng.integers(len(_ANY)))] for word in words]
        unique = sorted(set(names))
        texts = []
        for name in unique:
            states = _STATES[int(rng.integers(len(_STATES)))]
            template = HANDCRAFTED_TEMPLATES[int(rng.integers(len(HANDCRAFTED_TEMPLATES)))]
            framed = rng.random() < 0.4 and not states[0].startswith("a photo")
            pair = [template.replace("{}", state) for state in states] if framed else states
            texts += [text.replace("{}", name) for text in pair]
        return texts, torch.tensor([unique.index(name) for name in names], device=self.scale.device)


def _all_words() -> set[str]:
    """Every word of captions and states."""
    texts = [OBJECT, SURFACE]
    texts += [item.words for table in (MATERIALS, THINGS, DEFECTS) for item in table.values()]
    texts += [*CAPTION_TEXTS, *HANDCRAFTED_TEMPLATES, *_ANY[:-1]]
    texts += [text for pair in (*STATE_WORDS, *HANDCRAFTED_STATES, *_STATES) for text in pair]
    return {word for text in texts for word in text.replace("{}", "").replace(".", " .").split()}


def _segmentation(score: Tensor, target: Tensor) -> Tensor:
    """Focal and dice of logits [B, rows, columns] against cells of 0 and 1."""
    probability = score.sigmoid()
    right = torch.where(target > 0, probability, 1 - probability).clamp(1e-6, 1)
    focal = (-((1 - right) ** 2) * right.log() * torch.where(target > 0, 3.0, 1.0)).mean()
    common, total = (probability * target).sum((1, 2)), probability.sum((1, 2)) + target.sum((1, 2))
    return 4 * focal + (1 - (2 * common + 1) / (total + 1)).mean()
