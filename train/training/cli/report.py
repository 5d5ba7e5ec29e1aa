"""What a finished run says of its KD loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kanoclip.train.training.config import TrainConfig


def kd_shares(records: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Shares of the images inside the KD loss's hinge: at step 0 and at a run's last step; None where none is known.

    Args:
        records: The run's epochs (`Progress.history`).
    """
    first, last = (record.get("kd_active_at") for record in (records[0], records[-1])) if records else (None, None)
    return None if first is None or last is None else (float(first["first"]), float(last["last"]))


def dead_kd(config: TrainConfig, records: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning about a KD loss that has done nothing; None where it acted.

    Args:
        config: The run's.
        records: Its epochs' (`Progress.history`).
    """
    if any(record["kd_active"] > 0 for record in records):
        return None
    start = "the KD loss was 0 throughout (kd_active 0 in every epoch), its hinge being met from the start"
    if config.kd_form == "printed":
        return f"{start}: use --kd-form anchored, or a --kd-margin above {config.hinge_margin:g}"
    return (
        f"{start}: use a --kd-margin above {config.hinge_margin:g} (2 at most), or reword the knowledge base where a "
        "`background` says the same as the abnormal descriptions"
    )
