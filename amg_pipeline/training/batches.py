"""Batches of augmented scenes, the same for the same seed, epoch and index.

Label maps have the resolution of the model's low-res logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from amg_pipeline.training.pasting import Cutout, paste
from amg_pipeline.training.prompts import draw_clicks, drop_small_masks, sample_prompts
from amg_pipeline.training.scene_cache import SceneCache
from amg_pipeline.training.views import PHOTOGRAPHS, Augmentation, augmented_view, whole_view

Batch = tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Source:
    """Scenes and how often one of them is drawn.

    Attributes:
        cache: Rendered scenes.
        share: Share of the views; those of all sources are scaled to a sum of one.
        augmentation: How views differ from the scenes, where they are augmented.
        cutouts: Things that are pasted into scenes, where they are augmented.
        pasted: Share of the scenes that this happens to.
    """

    cache: SceneCache
    share: float = 1.0
    augmentation: Augmentation = PHOTOGRAPHS
    cutouts: Sequence[Cutout] = ()
    pasted: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewSettings:
    """How views are drawn.

    Attributes:
        size: Side of a view in pixels: the model's input.
        label_size: Side of its label maps: the model's low-res logits.
        batch_size: Views of a batch.
        augment: Whether views are cropped, mirrored, turned and recoloured.
        min_area: Masks of a smaller share of the view are no targets.
        prompts: Prompts of a view; 0 for none.
        cells: Cells of the embedding grid in which their masks are compared; 0 for all.
        clicks: Clicks of a view whose groups are learnt; 0 for none.
        pixels: Pixels that these are compared with.
    """

    size: int
    label_size: int
    batch_size: int
    prompts: int = 0
    cells: int = 0
    clicks: int = 0
    pixels: int = 0
    augment: bool = True
    min_area: float = 0.0


class SceneBatches(keras.utils.PyDataset):
    """Batches of views with what is asked about them, as `SceneTrainer` takes them.

    Args:
        sources: Where scenes are drawn from.
        views: How views are drawn.
        steps: Batches of an epoch.
        seed: Decides everything drawn.

    Attributes:
        epoch: Which epoch's batches are given next.
        skipped: Batches of it that are left out, as they were trained on before a kill.
    """

    def __init__(
        self, sources: Sequence[Source], views: ViewSettings, *, steps: int, seed: int
    ) -> None:
        super().__init__()
        self._sources = tuple(sources)
        shares = np.array([source.share for source in sources], np.float64)
        self._shares = shares / shares.sum()
        self._views = views
        self._steps = steps
        self._seed = seed
        self.epoch = 0
        self.skipped = 0

    def __len__(self) -> int:
        return self._steps - self.skipped

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng((self._seed, self.epoch, self.skipped + index))
        drawn = [self._draw(rng) for _ in range(self._views.batch_size)]
        inputs, targets = zip(*drawn, strict=True)
        return _stacked(inputs), _stacked(targets)

    def _draw(self, rng: np.random.Generator) -> Batch:
        """Draw one view with what is asked about it."""
        views = self._views
        pixels, labels = self._view(rng)
        labels = drop_small_masks(labels, views.min_area)
        inputs: dict[str, NDArray[Any]] = {"image": pixels}
        targets: dict[str, NDArray[Any]] = {}
        if views.clicks:
            flat = labels.reshape(len(labels), -1)
            clicks = draw_clicks(rng, labels, views.clicks)
            at = rng.choice(flat.shape[1], views.pixels, replace=False).astype(np.int32)
            inputs |= {"clicks": clicks, "pixels": at}
            targets |= {"click_ids": flat[:, clicks].T, "pixel_ids": flat[:, at]}
        if views.prompts:
            prompts = sample_prompts(rng, labels, views.prompts)
            # Anywhere in the low-res pixel that was drawn: it is larger than one of the image.
            offset = rng.uniform(0.0, 1.0, prompts.coords.shape)
            coords = (prompts.coords + offset) * (views.size / views.label_size) - 0.5
            inputs |= {"coords": coords.astype(np.float32), "labels": prompts.labels}
            targets |= {
                "label_maps": labels,
                "target_ids": prompts.target_ids,
                "meant_levels": prompts.meant_levels,
            }
            if views.cells:
                grid = views.label_size**2 // 16
                cells = rng.choice(grid, views.cells, replace=False)
                inputs["cells"] = np.sort(cells).astype(np.int32)
        return inputs, targets

    def _view(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        source = self._sources[int(rng.choice(len(self._sources), p=self._shares))]
        scene = source.cache.scene(int(rng.integers(source.cache.meta.count)))
        sides = {"size": self._views.size, "label_size": self._views.label_size}
        if not self._views.augment:
            return whole_view(scene.image, scene.label_maps, **sides)
        if source.cutouts and rng.random() < source.pasted:
            scene = paste(rng, scene, source.cutouts)
        return augmented_view(
            rng, scene.image, scene.label_maps, augmentation=source.augmentation, **sides
        )


def _stacked(parts: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}
