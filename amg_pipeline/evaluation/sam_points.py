"""SAM as a model of clicks: encoded once, then any number of prompts with any number of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.evaluation.point_model import PointOutputs
from amg_pipeline.sam import SAM
from amg_pipeline.sam.backend import compile_function
from amg_pipeline.sam.postprocess import resize_weights
from amg_pipeline.sam.prompt_encoder import LABEL_NOT_A_POINT
from amg_pipeline.sam.transforms import longest_side_size


@dataclass(frozen=True, slots=True)
class _Embedding:
    features: Any
    #: What a pixel of the image is in [0, 1] of the model frame, XY.
    scale_xy: NDArray[np.float64]
    weights_y: NDArray[np.float32]
    weights_x: NDArray[np.float32]


class SamPoints:
    """Runs a SAM on prompts of several clicks, in batches of one size.

    Earlier logits go to the model as its mask prompt. A model that was trained without them, as the
    packaged `tiny` was, ignores them.

    Args:
        sam: A built model.
        prompts_per_batch: Prompts of one decoder call; fewer are padded.
    """

    def __init__(self, sam: SAM, *, prompts_per_batch: int = 16) -> None:
        self._sam = sam
        self._prompts_per_batch = prompts_per_batch
        self._embed = compile_function(sam.image_encoder, sam.image_encoder.variables)
        prompt_side = [*sam.prompt_encoder.variables, *sam.mask_decoder.variables]
        self._decode = compile_function(self._decode_points, prompt_side)
        self._decode_again = compile_function(self._decode_points_and_masks, prompt_side)

    @property
    def prompts_per_batch(self) -> int:
        """Prompts that one call of `decode` takes at most."""
        return self._prompts_per_batch

    def encode(self, image: NDArray[np.uint8]) -> _Embedding:
        """Embed an image, uint8 `(height, width, 3)` RGB."""
        sam = self._sam
        height, width = image.shape[:2]
        img_size = sam.image_encoder.img_size
        input_hw = longest_side_size(height, width, img_size)
        low_res = sam.prompt_encoder.mask_input_size
        weights_y, weights_x = (
            ops.convert_to_numpy(
                resize_weights(low_res[axis], img_size, input_hw[axis], image.shape[axis])
            )
            for axis in (0, 1)
        )
        return _Embedding(
            features=self._embed(sam.preprocess(image[np.newaxis])),
            scale_xy=np.array([input_hw[1] / width, input_hw[0] / height]),
            weights_y=weights_y,
            weights_x=weights_x,
        )

    def decode(
        self,
        embedding: _Embedding,
        points: NDArray[np.float64],
        labels: NDArray[np.int32],
        logits: NDArray[np.float32] | None = None,
    ) -> PointOutputs:
        """Run prompts; see `PointModel`."""
        count = len(points)
        # The padding point that SAM adds to clicks without a box.
        coords = np.pad(points * embedding.scale_xy, ((0, 0), (0, 1), (0, 0)))
        normalized = ((coords + 0.5) / self._sam.image_encoder.img_size).astype(np.float32)
        meanings = np.pad(labels, ((0, 0), (0, 1)), constant_values=LABEL_NOT_A_POINT)
        arguments = [self._padded(normalized), self._padded(meanings.astype(np.int32))]
        if logits is None:
            masks, predicted_iou = self._decode(embedding.features, *arguments)
        else:
            arguments.append(self._padded(logits[:, np.newaxis]))
            masks, predicted_iou = self._decode_again(embedding.features, *arguments)
        return PointOutputs(
            ops.convert_to_numpy(masks)[:count].astype(np.float32),
            ops.convert_to_numpy(predicted_iou)[:count].astype(np.float32),
        )

    def full_size(self, embedding: _Embedding, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring low-res logits to the image's size; see `PointModel`."""
        full: NDArray[np.float32] = np.matmul(embedding.weights_y, logits) @ embedding.weights_x.T
        full -= np.float32(self._sam.mask_threshold)
        return full

    def _padded(self, array: NDArray[Any]) -> NDArray[Any]:
        missing = self._prompts_per_batch - len(array)
        return np.pad(array, ((0, missing), *((0, 0),) * (array.ndim - 1)), mode="edge")

    def _decode_points(self, features: Any, coords: Any, labels: Any) -> tuple[Any, Any]:
        _, dense = self._sam.prompt_encoder()
        return self._decode_with(features, coords, labels, dense)

    def _decode_points_and_masks(
        self, features: Any, coords: Any, labels: Any, logits: Any
    ) -> tuple[Any, Any]:
        return self._decode_with(
            features, coords, labels, self._sam.prompt_encoder(masks=logits)[1]
        )

    def _decode_with(self, features: Any, coords: Any, labels: Any, dense: Any) -> tuple[Any, Any]:
        prompt_encoder = self._sam.prompt_encoder
        sparse = prompt_encoder.embed_normalized_points(
            ops.convert_to_tensor(coords), ops.convert_to_tensor(labels)
        )
        outputs: tuple[Any, Any] = self._sam.mask_decoder(
            image_embeddings=features,
            image_pe=prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return outputs
