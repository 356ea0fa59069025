"""The reference: `SamAutomaticMaskGenerator` of `segment-anything-py`, in PyTorch."""

from __future__ import annotations

import copy
from typing import Any

# Before anything that imports TensorFlow: PyTorch crashes when it is loaded after it.
import torch  # isort: skip

import numpy as np
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor

from benchmarks.contenders.protocol import POINTS_PER_BATCH, Task
from benchmarks.reference_model import build_reference
from benchmarks.seeded_weights import MODELS, seeded_state_dict


class ReferenceContender:
    """Implements `Contender`."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(task.threads)
        model = MODELS[task.model]
        self._sam = build_reference(model.architecture, seeded_state_dict(model))
        settings = {
            "points_per_side": task.points_per_side,
            "points_per_batch": POINTS_PER_BATCH,
            "pred_iou_thresh": task.pred_iou_thresh,
            "stability_score_thresh": task.stability_score_thresh,
            "output_mode": "coco_rle",
        }
        self._generator = SamAutomaticMaskGenerator(self._sam, **settings)
        # The generator's own post-processing, fed with what was scored.
        self._stage = SamAutomaticMaskGenerator(self._sam, **settings)
        self._stage.predictor.predict_torch = self._upscale_scored

    @torch.no_grad()
    def embed(self, photo: NDArray[np.uint8]) -> None:
        """See `Contender`."""
        self._photo = photo
        self._predictor = SamPredictor(self._sam)
        self._predictor.set_image(photo)

    @torch.no_grad()
    def score(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """See `Contender`."""
        self._points = points
        coords = self._predictor.transform.apply_coords(points, self._photo.shape[:2])
        labels = torch.ones((len(points), 1), dtype=torch.int)
        encoder = self._sam.prompt_encoder
        sparse, dense = encoder(
            points=(torch.as_tensor(coords)[:, None], labels), boxes=None, masks=None
        )
        self._low_res, self._iou = self._sam.mask_decoder(
            image_embeddings=self._predictor.features,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        scores: NDArray[np.float32] = self._iou.numpy()
        return scores

    def _upscale_scored(self, *_: Any, **__: Any) -> tuple[Any, Any, Any]:
        predictor = self._predictor
        masks = self._sam.postprocess_masks(
            self._low_res, predictor.input_size, predictor.original_size
        )
        return masks, self._iou, self._low_res

    def set_thresholds(self, *, pred_iou_thresh: float, stability_score_thresh: float) -> None:
        """Filter otherwise from here on."""
        for generator in (self._generator, self._stage):
            generator.pred_iou_thresh = pred_iou_thresh
            generator.stability_score_thresh = stability_score_thresh

    def stabilities(self) -> list[float]:
        """Give the stability scores of the masks that `measure` found last."""
        scores: list[float] = self._measured["stability_score"].tolist()
        return scores

    @torch.no_grad()
    def measure(self) -> int:
        """See `Contender`."""
        height, width = self._photo.shape[:2]
        stage = self._stage.predictor
        stage.original_size, stage.input_size = (
            self._predictor.original_size,
            self._predictor.input_size,
        )
        self._measured = self._stage._process_batch(
            self._points, (height, width), [0, 0, width, height], (height, width)
        )
        return len(self._measured["rles"])

    def logits(self) -> NDArray[np.float32]:
        """See `Contender`."""
        array: NDArray[np.float32] = self._low_res.numpy()
        return array

    def generate(self, photo: NDArray[np.uint8]) -> int:
        """See `Contender`."""
        return len(self._generator.generate(photo))

    def work(self, photo: NDArray[np.uint8], points: NDArray[np.float64]) -> dict[str, Any]:
        """See `Contender`: products alone; a whole photo is so many batches of them."""
        from torch.utils.flop_counter import FlopCounterMode

        del photo
        # On no device at all: shapes are enough to count.
        sam = copy.deepcopy(self._sam).to("meta")
        side = sam.image_encoder.img_size
        with torch.device("meta"), torch.no_grad():
            with FlopCounterMode(display=False) as embedding:
                features = sam.image_encoder(torch.empty(1, 3, side, side))
            with FlopCounterMode(display=False) as scoring:
                sam.mask_decoder(
                    image_embeddings=features,
                    image_pe=sam.prompt_encoder.get_dense_pe(),
                    # A point and its padding; without a mask, one embedding for all positions.
                    sparse_prompt_embeddings=torch.empty(len(points), 2, features.shape[1]),
                    dense_prompt_embeddings=torch.empty(len(points), *features.shape[1:]),
                    multimask_output=True,
                )
        batches = len(self._generator.point_grids[0]) / len(points)
        embed, score = embedding.get_total_flops(), scoring.get_total_flops()
        flops = {"embed": embed, "score": score, "generate": round(embed + batches * score)}
        return {name: {"flops": value} for name, value in flops.items()}
