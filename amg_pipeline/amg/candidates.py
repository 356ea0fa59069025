"""Masks that passed the filters so far, on their way through the suppressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.boxes import boxes_to_image_frame
from amg_pipeline.amg.kept_masks import KeptMasks
from amg_pipeline.amg.nms import suppress_boxes, suppress_masks
from amg_pipeline.config import AmgSettings
from amg_pipeline.records import CropBox


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """`N` masks with their scores; all of one frame, a crop's or the image's.

    Attributes:
        predicted_iou: Float32 `(N,)`.
        stability_score: Float32 `(N,)`.
        boxes_xyxy: Inclusive corners, int64 `(N, 4)`.
        points: The prompts, XY, float64 `(N, 2)`.
        masks: The masks, packed.
        crops: The crop that each mask was found in.
    """

    predicted_iou: NDArray[np.float32]
    stability_score: NDArray[np.float32]
    boxes_xyxy: NDArray[np.int64]
    points: NDArray[np.float64]
    masks: KeptMasks
    crops: tuple[CropBox, ...]

    def __len__(self) -> int:
        return len(self.masks)

    def take(self, indices: NDArray[np.intp]) -> Candidates:
        """Select masks by index, in the given order."""
        return Candidates(
            predicted_iou=self.predicted_iou[indices],
            stability_score=self.stability_score[indices],
            boxes_xyxy=self.boxes_xyxy[indices],
            points=self.points[indices],
            masks=self.masks.take(indices),
            crops=tuple(self.crops[i] for i in indices),
        )

    def to_image_frame(self, crop: CropBox) -> Candidates:
        """Move masks, boxes and points from a crop's frame to the image frame."""
        return Candidates(
            predicted_iou=self.predicted_iou,
            stability_score=self.stability_score,
            boxes_xyxy=boxes_to_image_frame(self.boxes_xyxy, crop),
            points=self.points + np.array([crop.x0, crop.y0]),
            masks=self.masks.shifted(dx=crop.x0, dy=crop.y0),
            crops=self.crops,
        )

    def suppress(
        self, scores: NDArray[np.float32], *, threshold: float, settings: AmgSettings
    ) -> Candidates:
        """Drop duplicates by boxes or masks, as `nms_kind` says; keep by descending score."""
        if settings.nms_kind == "mask":
            return self.take(suppress_masks(self.masks, scores, threshold=threshold))
        return self.take(suppress_boxes(self.boxes_xyxy, scores, threshold=threshold))


def concatenate_candidates(parts: Sequence[Candidates]) -> Candidates:
    """Join candidates of one frame in their order; no parts give no candidates."""
    return Candidates(
        predicted_iou=np.concatenate([np.empty(0, np.float32), *(p.predicted_iou for p in parts)]),
        stability_score=np.concatenate(
            [np.empty(0, np.float32), *(p.stability_score for p in parts)]
        ),
        boxes_xyxy=np.concatenate([np.empty((0, 4), np.int64), *(p.boxes_xyxy for p in parts)]),
        points=np.concatenate([np.empty((0, 2)), *(p.points for p in parts)]),
        masks=KeptMasks.joined([part.masks for part in parts]),
        crops=tuple(crop for part in parts for crop in part.crops),
    )
