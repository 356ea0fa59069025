"""The optimizer of the recipes: Muon for matrices, AdamW for the rest, and its learning rate."""

from __future__ import annotations

from typing import Any

import keras

#: Matrices that are tables or read-outs: each row means something by itself.
_NOT_MATRICES = ["rel_pos", "(mask_tokens|iou_token|embed)$", "hypernetworks", "iou_prediction"]


def muon(schedule: Any, *, ema_momentum: float, weight_decay: float = 0.01) -> Any:
    """Make the optimizer.

    In short trainings Muon's steps, which have equal size in all directions, bring an encoder as
    far as AdamW's in about half of the steps.

    Args:
        schedule: Learning rate by step.
        ema_momentum: Of the average of weights that is kept beside them.
        weight_decay: Share of a weight that is taken off in a step, by the learning rate.

    Source: Jordan et al. 2024 (Muon); Liu et al. 2025 (arXiv:2502.16982) for the scale of steps.
    """
    return keras.optimizers.Muon(
        schedule,
        weight_decay=weight_decay,
        adam_weight_decay=weight_decay,
        exclude_layers=_NOT_MATRICES,
        global_clipnorm=1.0,
        use_ema=True,
        ema_momentum=ema_momentum,
    )


@keras.saving.register_keras_serializable(package="amg_pipeline")
class WarmUpHold(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to the peak, which is held until a linear cool-down to zero.

    A training that is to go on is stopped before the cool-down; unlike a cosine, the schedule up to
    there does not depend on how long the training will be.

    Args:
        peak: Highest learning rate.
        warm_up_steps: Steps until the peak.
        cool_down_steps: Steps from the peak to zero.
        total_steps: Steps until zero.
    """

    def __init__(
        self, peak: float, warm_up_steps: int, cool_down_steps: int, total_steps: int
    ) -> None:
        self.peak = peak
        self.warm_up_steps = warm_up_steps
        self.cool_down_steps = cool_down_steps
        self.total_steps = total_steps

    def __call__(self, step: Any) -> Any:
        """Give the learning rate of a step, counted from 0."""
        step = keras.ops.cast(step, "float32")
        rise = (step + 1.0) / self.warm_up_steps
        fall = keras.ops.maximum(self.total_steps - step, 0.0) / max(self.cool_down_steps, 1)
        held = keras.ops.minimum(rise, 1.0)
        return self.peak * (keras.ops.minimum(held, fall) if self.cool_down_steps else held)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, for saving."""
        return {
            "peak": self.peak,
            "warm_up_steps": self.warm_up_steps,
            "cool_down_steps": self.cool_down_steps,
            "total_steps": self.total_steps,
        }
