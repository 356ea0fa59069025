"""How an image is cut into overlapping crops."""

from __future__ import annotations

import math
from itertools import product

from amg_pipeline.records import CropBox


def generate_crop_boxes(
    height: int, width: int, *, crop_n_layers: int, crop_overlap_ratio: float
) -> list[CropBox]:
    """Cut an image into layers of ever smaller crops.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        crop_n_layers: Layers besides the whole image; layer i has `(2 ** i) ** 2` crops.
        crop_overlap_ratio: Overlap of layer 1 as a fraction of the image's shorter side; halved
            with every further layer.

    Returns:
        The whole image, then the layers' crops, column after column of crops. The order matters:
        it decides between masks of equally large crops.

    Source:
        `generate_crop_boxes` of the reference. In images of a few pixels some crops of the
        reference are empty, and encoding them fails; here they are left out.
    """
    crops = [CropBox(0, 0, width, height, layer=0)]
    for layer in range(1, crop_n_layers + 1):
        crops_per_side = 2**layer
        overlap = int(crop_overlap_ratio * min(height, width) * (2 / crops_per_side))
        crop_width = _crop_length(width, crops_per_side, overlap)
        crop_height = _crop_length(height, crops_per_side, overlap)
        lefts = [(crop_width - overlap) * i for i in range(crops_per_side)]
        tops = [(crop_height - overlap) * i for i in range(crops_per_side)]
        for x0, y0 in product(lefts, tops):
            x1, y1 = min(x0 + crop_width, width), min(y0 + crop_height, height)
            if x1 > x0 and y1 > y0:
                crops.append(CropBox(x0, y0, x1, y1, layer=layer))
    return crops


def _crop_length(length: int, crops_per_side: int, overlap: int) -> int:
    return math.ceil((overlap * (crops_per_side - 1) + length) / crops_per_side)
