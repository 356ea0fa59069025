"""Edges of an image from masks of it, without training for edges.

Source:
    Kirillov et al. 2023 (arXiv:2304.02643), section 7.2 and appendix D.2: a grid of 16 x 16 points,
    all three outputs of each and no filter by scores; non-maximum suppression; for each mask the
    Sobel gradient of its probabilities, on the pixels of its outer border alone; the greatest over
    all masks, scaled to [0, 1], thinned by edge suppression. The thinning, which the paper leaves
    open, is that of Dollar and Zitnick's structured edges, whose orientation comes of second
    derivatives, without its fading of edges near the image's border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amg_pipeline.amg.boxes import mask_to_box
from amg_pipeline.amg.nms import suppress_boxes
from amg_pipeline.amg.point_grid import build_point_grid
from amg_pipeline.evaluation.point_model import FOREGROUND, PointModel

#: Radius in pixels of the triangle filter before the orientation of edges is taken.
_SMOOTHING = 4
#: By how much a neighbour across the edge must be stronger to delete a pixel.
_TOLERANCE = 1.01
_BORDER = np.ones((3, 3), bool)
#: Pixels around a mask's box that its border and their gradients need.
_MARGIN = 2


def predict_edges(
    model: PointModel,
    image: NDArray[np.uint8],
    *,
    points_per_side: int = 16,
    nms_threshold: float = 0.7,
) -> NDArray[np.float32]:
    """Find the edges of an image.

    Args:
        model: What segments.
        image: Uint8 `(height, width, 3)` RGB.
        points_per_side: Points along one side of the grid.
        nms_threshold: Box IoU above which the lower scored of two masks is dropped.

    Returns:
        Strength of edges, thin, float32 `(height, width)` in [0, 1].
    """
    height, width = image.shape[:2]
    embedding = model.encode(image)
    points = build_point_grid(points_per_side) * np.array([width, height])
    logits: list[NDArray[np.float32]] = []
    scores: list[float] = []
    boxes: list[tuple[int, int, int, int]] = []
    for start in range(0, len(points), model.prompts_per_batch):
        batch = points[start : start + model.prompts_per_batch, np.newaxis]
        outputs = model.decode(embedding, batch, np.full(batch.shape[:2], FOREGROUND, np.int32))
        for some, predicted_iou in zip(outputs.logits, outputs.predicted_iou, strict=True):
            boxes.extend(mask_to_box(mask) for mask in model.full_size(embedding, some) > 0)
            logits.extend(some)
            scores.extend(predicted_iou)
    kept = suppress_boxes(
        np.array(boxes, np.int64), np.array(scores, np.float32), threshold=nms_threshold
    )
    strongest = np.zeros((height, width), np.float32)
    for index in kept:
        add_mask_edges(strongest, model.full_size(embedding, logits[index][np.newaxis])[0])
    greatest = float(strongest.max())
    return suppress_beside_edges(strongest / greatest if greatest > 0 else strongest)


def add_mask_edges(strongest: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Raise edges, in place, to those of one mask.

    Args:
        strongest: Strength of edges so far, float32 `(height, width)`.
        logits: Of the mask, of the same shape; above 0 is mask.
    """
    if not (logits > 0).any():
        return
    x0, y0, x1, y1 = mask_to_box(logits > 0)
    window = (
        slice(max(0, y0 - _MARGIN), y1 + _MARGIN + 1),
        slice(max(0, x0 - _MARGIN), x1 + _MARGIN + 1),
    )
    part = logits[window]
    mask = part > 0
    # Beyond 30, a probability is 0 or 1 in float32.
    probability = 1.0 / (1.0 + np.exp(-np.clip(part, -30.0, 30.0)))
    gradient = np.hypot(ndimage.sobel(probability, axis=0), ndimage.sobel(probability, axis=1))
    border = ndimage.binary_dilation(mask, _BORDER) & ~mask
    strongest[window] = np.maximum(strongest[window], np.where(border, gradient, 0.0))


def suppress_beside_edges(edges: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep of each edge only the ridge: what is beside it becomes 0.

    Args:
        edges: Strength, float32 `(height, width)`.
    """
    smooth = edges.astype(np.float64)
    triangle = np.concatenate([np.arange(1, _SMOOTHING + 2), np.arange(_SMOOTHING, 0, -1)])
    for axis in (0, 1):
        smooth = ndimage.correlate1d(smooth, triangle / triangle.sum(), axis, mode="mirror")
    if min(edges.shape) <= 1:
        return edges
    along_y, along_x = np.gradient(smooth)
    xx = np.gradient(along_x, axis=1)
    yy, xy = np.gradient(along_y)
    # The angle across the edge.
    angle = np.mod(np.arctan(yy * np.sign(-xy) / (xx + 1e-5)), np.pi)
    rows, columns = np.nonzero(edges)
    strength = edges[rows, columns] * _TOLERANCE
    is_ridge = np.ones(len(rows), bool)
    for side in (-1, 1):
        across = angle[rows, columns]
        neighbours = ndimage.map_coordinates(
            edges,
            [rows + side * np.sin(across), columns + side * np.cos(across)],
            order=1,
            mode="nearest",
        )
        is_ridge &= strength >= neighbours
    thin = np.zeros_like(edges)
    thin[rows[is_ridge], columns[is_ridge]] = edges[rows[is_ridge], columns[is_ridge]]
    return thin
