"""Batches for `SAMTrainer`: views of labelled images, and prompts that mean one mask each."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from amg_pipeline.training.labelled_views import MASK_DETAIL, ViewSource
from amg_pipeline.training.prompts import sample_mask_prompts
from amg_pipeline.training.sources.order import draw_order

Batch = tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]


class PromptedBatches(keras.utils.PyDataset):
    """Batches of views with prompts drawn in their masks.

    Images come in a new random order in each pass; what a batch holds depends on the seed and on
    its place in the training alone, so that a training can be taken up at any step.

    Where the order is fixed, each image counts equally often: what fills up the last batch after
    the last whole pass has prompts that mean nothing.

    Args:
        views: Where views come from: `LabelledViews` or `EmbeddingCache`.
        batch_size: Views of a batch.
        prompts: Prompts of a view.
        box_share: Share of the prompts that are noisy boxes; the others are clicks.
        min_area: Masks of a smaller share of the view are not prompted.
        steps: Batches of an epoch; by default one pass over the images.
        rounds: Rounds of prompting of the trainer.
        seed: Decides everything drawn.
        fixed: Whether images come in their own order, with the same prompts in each epoch, as
            validation wants; None: if the views are not random.

    Attributes:
        epoch: Which epoch's batches are given next.
        skipped: Batches at the beginning of an epoch that are left out: those before a kill.
    """

    def __init__(
        self,
        views: ViewSource,
        *,
        batch_size: int = 4,
        prompts: int = 8,
        box_share: float = 0.2,
        min_area: float = 0.0,
        steps: int | None = None,
        rounds: int = 3,
        seed: int = 0,
        fixed: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._views = views
        self._batch_size = batch_size
        self._prompts = prompts
        self._box_share = box_share
        self._side = MASK_DETAIL * views.low_res
        self._min_pixels = max(1, round(min_area * self._side**2))
        self._steps = steps or -(-len(views) // batch_size)
        self._rounds = rounds
        self._seed = seed
        self._fixed = not views.is_random if fixed is None else fixed
        self._order: tuple[int, NDArray[np.int64]] | None = None
        self.epoch = 0
        self.skipped = 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches of a whole epoch."""
        return self._steps

    def __len__(self) -> int:
        return self._steps - self.skipped

    def __getitem__(self, index: int) -> Batch:
        step = self.skipped + index
        if not self._fixed:
            step += self.epoch * self._steps
        first = step * self._batch_size
        drawn = [self._draw(first + place) for place in range(self._batch_size)]
        inputs, targets = (_stacked(parts) for parts in zip(*drawn, strict=True))
        if self._fixed:
            targets["masks"][max(self._counted - first, 0) :] = 0.0
        return inputs, targets

    @property
    def _counted(self) -> int:
        """Views of a fixed epoch that count: whole passes over the images, if there is one."""
        views = self._steps * self._batch_size
        return views - views % len(self._views) if views >= len(self._views) else views

    def on_epoch_end(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1

    def _draw(self, place: int) -> Batch:
        """Draw the view of a place in the training, with its prompts."""
        turn, at = divmod(place, len(self._views))
        index = at if self._fixed else self._shuffled(turn, at)
        rng = np.random.default_rng((self._seed, turn, at, 1))
        inputs, masks = self._views.draw(index, rng)
        coords, labels, meant = sample_mask_prompts(
            rng, masks, self._prompts, box_share=self._box_share, min_pixels=self._min_pixels
        )
        # Anywhere in the pixel that was drawn: it may be larger than one of the image.
        scale = self._views.size / self._side
        placed = (coords + rng.uniform(0.0, 1.0, coords.shape)) * scale - 0.5
        inputs = {**inputs, "prompt_coords": placed.astype(np.float32), "prompt_labels": labels}
        if self._rounds > 1:
            draws = rng.uniform(0.0, 1.0, (self._prompts, self._rounds - 1))
            inputs["draws"] = draws.astype(np.float32)
        if (meant < 0).any():
            masks, meant = np.zeros((1, *masks.shape[1:]), np.uint8), np.zeros_like(meant)
        return inputs, {"masks": _coverage(masks[meant])}

    def _shuffled(self, turn: int, at: int) -> int:
        """Give the image at a place of a pass, whose order is drawn once."""
        known = self._order
        if known is None or known[0] != turn:
            known = turn, draw_order(len(self._views), seed=self._seed, epoch=turn)
            self._order = known
        return int(known[1][at])


def _coverage(masks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Tell how far masks `(P, 2 S, 2 S)` cover low-res pixels, float32 `(P, S, S)` in [0, 1]."""
    count, side, _ = masks.shape
    shape = (count, side // MASK_DETAIL, MASK_DETAIL, side // MASK_DETAIL, MASK_DETAIL)
    covered: NDArray[np.float32] = (masks > 0).reshape(shape).mean(axis=(2, 4), dtype=np.float32)
    return covered


def _stacked(parts: tuple[dict[str, NDArray[Any]], ...]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}
