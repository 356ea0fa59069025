"""Labelled images and a trainer so small that tests can fit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from amg_pipeline.sam import SAM
from amg_pipeline.training.labelled_views import LabelledViews
from amg_pipeline.training.prompted_batches import PromptedBatches
from amg_pipeline.training.trainer import SAMTrainer
from amg_pipeline.training.views import PHOTOGRAPHS
from tests.training.small_preset import SMALL


@dataclass
class Drawing:
    """Bright rectangles on a dark ground."""

    seed: int = 0
    height: int = 40
    width: int = 60
    rectangles: int = 3
    reads: int = 0

    @property
    def name(self) -> str:
        return f"drawing {self.seed}"

    def read(self, longest_side: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        self.reads += 1
        rng = np.random.default_rng(self.seed)
        pixels = np.full((self.height, self.width, 3), 20, np.uint8)
        masks = np.zeros((self.rectangles, self.height, self.width), bool)
        for i, mask in enumerate(masks):
            top, left = rng.integers(0, self.height - 12), rng.integers(0, self.width - 12)
            mask[top : top + 12, left : left + 12] = True
            pixels[mask] = 100 + 50 * i
        return pixels, masks


def drawings(count: int = 3, **changes: Any) -> list[Drawing]:
    return [Drawing(seed, **changes) for seed in range(count)]


def small_sam(seed: int = 0) -> SAM:
    keras.utils.set_random_seed(seed)
    return SAM.from_preset(SMALL)


def small_batches(sam: SAM, **changes: Any) -> PromptedBatches:
    augmentation = changes.pop("augmentation", PHOTOGRAPHS)
    views = LabelledViews(drawings(), sam, augmentation=augmentation)
    return PromptedBatches(views, **{"batch_size": 1, "prompts": 2, "rounds": 2, **changes})


def small_trainer(sam: SAM, optimizer: Any = None, **arguments: Any) -> SAMTrainer:
    """A trainer that runs eagerly: tracing takes longer than the few steps of a test."""
    trainer = SAMTrainer(sam, **{"rounds": 2, **arguments})
    trainer.compile(optimizer=optimizer or keras.optimizers.Adam(1e-2), run_eagerly=True)
    return trainer
