from __future__ import annotations

import numpy as np

from amg_pipeline.amg.candidates import Candidates, concatenate_candidates
from amg_pipeline.amg.kept_masks import KeptMasks
from amg_pipeline.amg.packed_masks import pack_mask, unpack_window
from amg_pipeline.config import AmgSettings
from amg_pipeline.records import CropBox

CROP = CropBox(5, 3, 25, 23, layer=1)


def squares(*sides: int) -> Candidates:
    """Squares of the given sides, all at the crop's top left."""
    return Candidates(
        predicted_iou=np.linspace(0.9, 0.5, len(sides), dtype=np.float32),
        stability_score=np.ones(len(sides), np.float32),
        boxes_xyxy=np.array([[0, 0, side - 1, side - 1] for side in sides]),
        points=np.array([[side / 2, side / 2] for side in sides]),
        masks=KeptMasks(pack_mask(np.ones((side, side), bool)) for side in sides),
        crops=(CROP,) * len(sides),
    )


def test_moving_to_the_image_shifts_masks_boxes_and_points():
    moved = squares(4).to_image_frame(CROP)
    assert moved.boxes_xyxy.tolist() == [[5, 3, 8, 6]]
    assert moved.points.tolist() == [[7.0, 5.0]]
    assert unpack_window(moved.masks[0], (5, 3, 9, 7)).all()
    assert moved.masks[0].area == 16


def test_taking_keeps_all_fields_together():
    taken = squares(4, 5, 6).take(np.array([2, 0]))
    assert taken.boxes_xyxy[:, 2].tolist() == [5, 3]
    assert [mask.area for mask in taken.masks] == [36, 16]
    assert taken.points[:, 0].tolist() == [3.0, 2.0]
    assert taken.predicted_iou.tolist() == [np.float32(0.5), np.float32(0.9)]


def test_joining_nothing_gives_no_candidates_of_the_right_kinds():
    nothing = concatenate_candidates([])
    assert len(nothing) == 0
    assert nothing.boxes_xyxy.shape == (0, 4)
    assert nothing.points.shape == (0, 2)
    assert nothing.predicted_iou.dtype == nothing.stability_score.dtype == np.float32


def test_joining_keeps_the_order():
    joined = concatenate_candidates([squares(4), concatenate_candidates([]), squares(6, 5)])
    assert [mask.area for mask in joined.masks] == [16, 36, 25]
    assert len(joined.crops) == 3


def test_suppression_compares_what_nms_kind_names():
    # Boxes have the areas 9 x 9 and 8 x 8 (no +1), the masks 10 x 10 and 9 x 9.
    found = squares(10, 9)
    for kind, num_kept in (("box", 2), ("mask", 1)):
        settings = AmgSettings(nms_kind=kind)
        kept = found.suppress(found.predicted_iou, threshold=0.8, settings=settings)
        assert len(kept) == num_kept
