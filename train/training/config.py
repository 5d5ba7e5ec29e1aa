"""What decides a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kanoclip.runtime.errors import TrainingError
from kanoclip.train.model.kanoclip import ModelConfig

Amp = Literal["no", "bf16", "fp16"]
Optimizer = Literal["adam", "adamw"]
KdForm = Literal["printed", "anchored"]
NormalTexts = Literal["derived", "written", "both"]
KD_MARGINS: dict[KdForm, float] = {"printed": 0.0, "anchored": 1.75}
"""Default margin of each form of the KD loss. 0 is the paper's; how 1.75 was chosen is in docs/training.md."""
MAX_KD_MARGIN = 2.0
"""Largest difference of two distances between unit vectors: with a larger margin the hinge is never met."""


@dataclass(frozen=True)
class TrainConfig:
    """All that changes the result of a run. A stopped run goes on only with the same values.

    Attributes:
        model: The model's shape.
        epochs: Passes over the images.
        batch_size: Images in an optimisation step, over all processes.
        optimizer: `adam` or `adamw`, betas (0.5, 0.999).
        lr_prompts: Peak learning rate of the prompts.
        lr_modules: Peak learning rate of Bi-CMCI and the Conv-Adapter.
        weight_decay: As the optimizer has it.
        warmup_steps: Steps of linear warm-up; a cosine to zero follows.
        clip_grad: Largest gradient norm over all that learns; 0 leaves it alone.
        kd_weight: alpha of eq. 13.
        global_weight: beta of eq. 13.
        local_weight: gamma of eq. 13.
        kd_form: `printed` is eq. 2 to the letter, `anchored` its form without what normal and abnormal descriptions
            share (`losses.kd_anchored`).
        kd_margin: Added inside the hinge, 0 to 2; None for the form's own default.
        observed: Read the VQA model's descriptions of single images, where the knowledge base has any.
        normal_texts: Which normal descriptions anchor the KD loss: those derived from the abnormal ones, those that
            somebody wrote, or both. A class without written ones takes the derived ones.
        ema: Decay of the averaged weights that are saved in place of the last ones; 0 for none.
        amp: Precision of autocast.
        augment: Random flips, quarter turns and changes of brightness and contrast.
        class_name: Words for [class] in place of each category's own; None for its own.
        seed: Of first values, order and augmentation.
    """

    model: ModelConfig
    epochs: int = 15
    batch_size: int = 8
    optimizer: Optimizer = "adam"
    lr_prompts: float = 1e-3
    lr_modules: float = 1e-4
    weight_decay: float = 0.0
    warmup_steps: int = 100
    clip_grad: float = 1.0
    kd_weight: float = 1.0
    global_weight: float = 1.0
    local_weight: float = 1.0
    kd_form: KdForm = "anchored"
    kd_margin: float | None = None
    observed: bool = True
    normal_texts: NormalTexts = "derived"
    ema: float = 0.0
    amp: Amp = "no"
    augment: bool = False
    class_name: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what no run can use.

        Raises:
            TrainingError: A value is out of range, or nothing would learn.
        """
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} {getattr(self, name)} is less than 1")
        not_negative = ("lr_prompts", "lr_modules", "weight_decay", "warmup_steps", "clip_grad")
        for name in (*not_negative, "kd_weight", "global_weight", "local_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise TrainingError(f"{name} {getattr(self, name)} is not a number from 0 up")
        if self.kd_form not in get_args(KdForm):
            raise TrainingError(f"unknown kd_form '{self.kd_form}': choose one of {', '.join(get_args(KdForm))}")
        if self.normal_texts not in get_args(NormalTexts):
            known = ", ".join(get_args(NormalTexts))
            raise TrainingError(f"unknown normal_texts '{self.normal_texts}': choose one of {known}")
        if self.normal_texts != "derived" and self.kd_form == "printed":
            raise TrainingError("eq. 2 as printed reads no normal descriptions: use --kd-form anchored with them")
        if not 0 <= self.hinge_margin <= MAX_KD_MARGIN:
            raise TrainingError(
                f"kd_margin {self.hinge_margin} is outside of 0 to {MAX_KD_MARGIN:g}, where a difference of distances "
                "of unit vectors lies"
            )
        if not 0 <= self.ema < 1:
            raise TrainingError(f"ema {self.ema} is outside of 0 to 1 (1 excluded): 0.999 is usual")
        if self.model.prompts == "handcrafted":
            raise TrainingError("handcrafted prompts bypass all that learns: evaluate them, there is nothing to train")
        if self.model.prompts == "template" and not (self.model.bicmci or self.model.conv_adapter):
            raise TrainingError(
                "nothing is left to learn without KnPL, Bi-CMCI and Conv-Adapter: "
                "evaluate it with `kanoclip-eval --prompts template`"
            )

    @property
    def hinge_margin(self) -> float:
        """The margin in use: `kd_margin`, or the form's own default."""
        return KD_MARGINS[self.kd_form] if self.kd_margin is None else self.kd_margin
