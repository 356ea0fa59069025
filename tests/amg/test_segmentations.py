from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amg_pipeline.amg.rle import decode_mask, encode_mask, rle_to_coco, rle_to_uncompressed
from amg_pipeline.amg.segmentations import draw_segmentation
from amg_pipeline.errors import StorageError

MASK = np.zeros((6, 8), bool)
MASK[1:4, 2:6] = True
OTHER = np.zeros((6, 8), bool)
OTHER[2:6, 4:8] = True
CORNERS = [2, 1, 6, 1, 6, 4, 2, 4]


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        pytest.param([CORNERS], MASK, id="polygon"),
        pytest.param([CORNERS, [4, 2, 8, 2, 8, 6, 4, 6]], MASK | OTHER, id="polygons"),
        pytest.param([np.array(CORNERS)], MASK, id="array"),
        pytest.param([CORNERS, [1, 2, 3, 4]], MASK, id="too-few-corners-beside"),
        pytest.param([[1, 2, 3, 4]], np.zeros_like(MASK), id="too-few-corners"),
        pytest.param([], np.zeros_like(MASK), id="nothing"),
        pytest.param(
            [[-1e30, -1e30, 1e30, -1e30, 1e30, 1e30, -1e30, 1e30]],
            np.ones_like(MASK),
            id="far-outside",
        ),
        pytest.param(rle_to_coco(encode_mask(MASK)), MASK, id="compressed"),
        pytest.param(rle_to_uncompressed(encode_mask(MASK)), MASK, id="run-lengths"),
    ],
)
def test_segmentations_are_drawn(segmentation: Any, expected: Any) -> None:
    found = decode_mask(draw_segmentation(segmentation, height=6, width=8))

    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("segmentation", "error"),
    [
        pytest.param({"size": [6, 8], "counts": [5]}, StorageError, id="runs-too-short"),
        pytest.param({"counts": "1"}, LookupError, id="no-size"),
        pytest.param([[1, 2, 3]], ValueError, id="half-a-corner"),
        pytest.param([[1, 2, 3, 4, 5, float("nan")]], ValueError, id="no-number"),
        pytest.param([["a"] * 6], ValueError, id="text"),
        pytest.param(3, TypeError, id="number"),
    ],
)
def test_what_is_no_segmentation_is_refused(segmentation: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        draw_segmentation(segmentation, height=6, width=8)
