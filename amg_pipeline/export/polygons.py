"""From a mask to polygons, and back to fewer corners.

Two kinds of rings, because rasterisers read polygons in two ways:

* *outline* rings run along the edges between pixels, so that a polygon covers what the mask does.
  pycocotools, Label Studio and geometry libraries read polygons like that.
* *centre* rings run from centre to centre of the pixels at the border, in whole numbers. Pillow
  and OpenCV, and with them LabelMe and most readers of YOLO, fill such a ring including the pixels
  on it.

Rasterised as it is meant, each ring gives the very pixels that it was traced from. Libraries that
trace masks offer one of the two (OpenCV centres, GDAL outlines) or cut corners (scikit-image,
contourpy), and weigh tens of megabytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

#: Points XY of a closed ring, float64 `(K, 2)`; the first is not repeated.
Ring = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outline:
    """The rings of a mask, along the edges of its pixels.

    Pixels that only touch at a corner belong to different parts.

    Attributes:
        parts: Outer rings, clockwise as seen on a screen, integral values; the largest first.
        num_holes: How many holes the parts have; no ring keeps them.
    """

    parts: tuple[Ring, ...]
    num_holes: int


def trace_outline(mask: NDArray[np.bool_]) -> Outline:
    """Find the rings along the edges between set and unset pixels of a bool `(height, width)`."""
    rings = _Corners.of(mask).rings()
    areas = [_signed_area(ring) for ring in rings]
    # Around a hole, too, the mask is to the right: the way is anticlockwise, the area negative.
    outer = sorted((i for i, area in enumerate(areas) if area > 0), key=lambda i: -areas[i])
    return Outline(tuple(rings[i] for i in outer), len(rings) - len(outer))


def to_centres(ring: Ring) -> Ring:
    """Turn an outer outline ring into the ring through the centres of its border pixels.

    Returns:
        Columns and rows of pixels, `(K, 2)`, integral values; at least three points, where a part
        of one pixel or one line has fewer by repeating the last.
    """
    after = np.roll(ring, -1, axis=0)
    step = np.sign(after - ring)
    # Inside is to the right of the way: below an edge to the right, left of one downwards.
    inside = np.stack([-step[:, 1], step[:, 0]], axis=1)
    first = ring + 0.5 * step + 0.5 * inside
    last = after - 0.5 * step + 0.5 * inside
    pixels = np.stack([first, last], axis=1).reshape(-1, 2) - 0.5
    pixels = pixels[np.any(pixels != np.roll(pixels, 1, axis=0), axis=1)]
    if not len(pixels):
        pixels = ring[:1]
    pixels = _without_straight(pixels)
    missing = max(0, 3 - len(pixels))
    return np.concatenate([pixels, np.repeat(pixels[-1:], missing, axis=0)])


def soften(ring: Ring) -> Ring:
    """Cut each corner of an outline ring half a pixel before and after it.

    A slope's stairs become a line through their middle, neither inside nor outside of it, which
    can then be simplified without a bias.
    """
    after = np.roll(ring, -1, axis=0)
    step = 0.5 * np.sign(after - ring)
    points = np.stack([ring + step, after - step], axis=1).reshape(-1, 2)
    return points[np.any(points != np.roll(points, 1, axis=0), axis=1)]


def simplify(ring: Ring, *, tolerance: float) -> Ring:
    """Leave out points, none of which lies farther than `tolerance` pixels from what is left.

    Returns:
        At least three of the points, in order; all for a tolerance of 0.

    Source:
        Douglas and Peucker 1973, as GEOS has it.
    """
    if tolerance <= 0 or len(ring) <= 3:
        return ring
    found = shapely.simplify(shapely.linearrings(ring), tolerance, preserve_topology=False)
    kept: Ring = shapely.get_coordinates(found)[:-1]
    return kept if len(kept) >= 3 else ring


def join_rings(rings: list[Ring]) -> tuple[Ring, float]:
    """Connect the rings of one mask to a single one, by bridges that are walked both ways.

    Args:
        rings: At least one, the largest first.

    Returns:
        The ring, and the length of the bridges in pixels.
    """
    joined, length = rings[0], 0.0
    for ring in rings[1:]:
        squares = np.sum((joined[:, None] - ring[None]) ** 2, axis=2)
        here, there = np.unravel_index(int(np.argmin(squares)), squares.shape)
        length += float(np.sqrt(squares[here, there]))
        turned = np.roll(ring, -int(there), axis=0)
        joined = np.concatenate([joined[: here + 1], turned, turned[:1], joined[here:]])
    return joined, length


@dataclass(frozen=True, slots=True)
class _Corners:
    """The corners of a mask's outline, each with the corner that follows it.

    Attributes:
        points: XY, float64 `(N, 2)`; where two set pixels meet at a corner only, it is there twice.
        successor: Index of the corner after each, with the mask to the right of the way.
    """

    points: Ring
    successor: NDArray[np.intp]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> _Corners:
        padded = np.pad(mask, 1)
        # The pixels around each corner: above and below, left and right.
        al, ar, bl, br = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
        is_falling, is_rising = al & br & ~ar & ~bl, ar & bl & ~al & ~br
        turns = al ^ ar ^ bl ^ br
        rows, columns = np.nonzero(turns | is_falling | is_rising)
        crossing = np.flatnonzero(~turns[rows, columns])
        # A crossing's first copy has the edge to the left, its second the edge to the right.
        order = np.sort(np.concatenate([np.arange(len(rows)), crossing]), kind="stable")
        is_second = np.diff(order, prepend=-1) == 0
        y, x = rows[order], columns[order]
        # So that parts stay apart, the edge that goes up belongs to the first copy where the set
        # pixels fall to the right, and to the second where they rise.
        goes_down = is_second ^ is_rising[y, x]
        successor = np.empty(len(order), np.intp)
        left, right = _edge_ends(np.lexsort([is_second, x, y]))
        _link(successor, left, right, forward=br[y[left], x[left]])
        upper, lower = _edge_ends(np.lexsort([goes_down, y, x]))
        _link(successor, upper, lower, forward=bl[y[upper], x[upper]])
        return cls(np.stack([x, y], axis=1).astype(np.float64), successor)

    def rings(self) -> list[Ring]:
        """Walk along all corners."""
        successor = self.successor.tolist()
        is_new = [True] * len(successor)
        rings = []
        for start in range(len(successor)):
            ring, corner = [], start
            while is_new[corner]:
                is_new[corner] = False
                ring.append(corner)
                corner = successor[corner]
            if ring:
                rings.append(self.points[ring])
        return rings


def _edge_ends(order: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split corners along lines into the beginnings and the ends of edges."""
    return order[0::2], order[1::2]


def _link(
    successor: NDArray[np.intp],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
    *,
    forward: NDArray[np.bool_],
) -> None:
    successor[np.where(forward, first, second)] = np.where(forward, second, first)


def _signed_area(ring: Ring) -> float:
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _without_straight(ring: Ring) -> Ring:
    """Leave out points on the way from their predecessor to their successor."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    is_turn = (cross != 0) | (np.sum(before * after, axis=1) < 0)
    return ring[is_turn] if is_turn.any() else ring
