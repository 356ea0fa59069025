"""Embeds views once, so that training with a frozen encoder does not run it again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.sam.backend import compile_function
from amg_pipeline.sam.model import SAM
from amg_pipeline.training.labelled_views import LabelledViews

_BATCH = 4


def embedding_bytes(sam: SAM) -> int:
    """Give the size of a view's embedding in memory, in bytes of float32."""
    rows, columns = sam.image_encoder.grid_size
    return 4 * rows * columns * int(sam.image_encoder.out_chans)


class EmbeddingCache:
    """A few views of each image, embedded; a source of views for `PromptedBatches`.

    The first view is the whole image as it is; further ones are the views' own random ones.

    Args:
        sam: The model; its encoder must be as it will be while the cache is used.
        views: Where the views come from.
        views_per_image: How many of each image are embedded; one if views are not random.
        seed: Decides which.
        dtype: What embeddings are kept in; `float16` halves the memory, which is 4 MB a view for
            the published models; see `embedding_bytes`.
    """

    def __init__(
        self,
        sam: SAM,
        views: LabelledViews,
        *,
        views_per_image: int = 8,
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        self.size, self.low_res = views.size, views.low_res
        self._views_per_image = views_per_image if views.is_random else 1
        self.is_random = self._views_per_image > 1
        self._images = len(views)
        self._masks: list[tuple[NDArray[np.uint8], int]] = []
        encoder = sam.image_encoder
        count = self._images * self._views_per_image
        self._embeddings = np.empty((count, *encoder.grid_size, encoder.out_chans), dtype)
        embed = compile_function(
            lambda pixels: encoder(sam.preprocess(pixels), training=False), encoder.variables
        )
        pending: list[NDArray[np.float32]] = []
        for number in range(count):
            index, turn = divmod(number, self._views_per_image)
            rng = np.random.default_rng((seed, index, turn))
            inputs, masks = views.draw_whole(index) if turn == 0 else views.draw(index, rng)
            self._masks.append((np.packbits(masks > 0, axis=-1), masks.shape[2]))
            pending.append(inputs["image"])
            if len(pending) == _BATCH or number == count - 1:
                self._embed(embed, pending, number + 1)
                pending = []

    def _embed(self, embed: Any, pending: list[NDArray[np.float32]], end: int) -> None:
        # The last batch is filled up: another shape would be compiled anew.
        filled = pending + pending[-1:] * (_BATCH - len(pending))
        embedded = ops.convert_to_numpy(embed(ops.convert_to_tensor(np.stack(filled))))
        self._embeddings[end - len(pending) : end] = embedded[: len(pending)]

    def __len__(self) -> int:
        return self._images

    def draw(
        self, index: int, rng: np.random.Generator
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
        """Draw one of an image's views."""
        number = index * self._views_per_image + int(rng.integers(self._views_per_image))
        bits, width = self._masks[number]
        embedding = self._embeddings[number].astype(np.float32)
        return {"image_embedding": embedding}, np.unpackbits(bits, axis=-1, count=width)
