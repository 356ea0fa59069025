"""What a run does after the model, done anew with the candidates that a run has stored."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from amg_pipeline.amg.candidates import Candidates, concatenate_candidates
from amg_pipeline.amg.found_masks import FoundMasks
from amg_pipeline.amg.kept_masks import KeptMasks
from amg_pipeline.amg.packed_masks import PackedMask, pack_mask
from amg_pipeline.amg.rle import decode_window
from amg_pipeline.amg.scores import crop_scores, passes_predicted_iou, passes_stability
from amg_pipeline.config import AmgSettings
from amg_pipeline.records import MaskRecord


def replay(
    records: Sequence[MaskRecord], settings: AmgSettings, *, height: int, width: int
) -> tuple[MaskRecord, ...]:
    """Filter and suppress the candidates of an image, as a run with these settings does.

    Args:
        records: In the order in which they were found: crop after crop.
        settings: No looser than those that the candidates were stored with.
        height: Rows of the image.
        width: Columns of the image.
    """
    candidates = to_candidates(records)
    passes = passes_predicted_iou(candidates.predicted_iou, settings.pred_iou_thresh)
    passes &= passes_stability(candidates.stability_score, settings.stability_score_thresh)
    found = candidates.take(np.flatnonzero(passes))
    if not settings.keep_candidates:
        found = _suppress(found, settings)
    return FoundMasks(found, settings, height=height, width=width).to_records()


def to_candidates(records: Sequence[MaskRecord]) -> Candidates:
    """Bring masks of one image into the form in which they are compared."""
    return Candidates(
        predicted_iou=np.array([record.predicted_iou for record in records], np.float32),
        stability_score=np.array([record.stability_score for record in records], np.float32),
        boxes_xyxy=np.array([record.box_xyxy for record in records], np.int64).reshape(-1, 4),
        points=np.array([record.point_coords for record in records], np.float64).reshape(-1, 2),
        masks=KeptMasks(map(_pack, records)),
        crops=tuple(record.crop_box for record in records),
    )


def _pack(record: MaskRecord) -> PackedMask:
    left, top, right, bottom = record.box_xyxy
    window = decode_window(record.rle, (left, top, right + 1, bottom + 1))
    return pack_mask(window, left=left, top=top)


def _suppress(found: Candidates, settings: AmgSettings) -> Candidates:
    """Suppress within each crop, then between crops."""
    numbers = range(len(found))
    crops = [list(group) for _, group in groupby(numbers, key=lambda i: found.crops[i])]
    kept = []
    for indices in crops:
        crop = found.take(np.array(indices, np.intp))
        kept.append(
            crop.suppress(crop.predicted_iou, threshold=settings.box_nms_thresh, settings=settings)
        )
    merged = concatenate_candidates(kept)
    if settings.crop_n_layers == 0:
        return merged
    return merged.suppress(
        crop_scores(merged.crops), threshold=settings.crop_nms_thresh, settings=settings
    )
