from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.amg.crops import generate_crop_boxes
from amg_pipeline.records import CropBox


def test_no_layers_give_the_whole_image():
    crops = generate_crop_boxes(30, 40, crop_n_layers=0, crop_overlap_ratio=0.3)
    assert crops == [CropBox(0, 0, 40, 30, layer=0)]


def test_layer_one_is_the_references_four_crops_by_columns():
    # The reference's values for a photo of 1500 x 2250 pixels.
    crops = generate_crop_boxes(1500, 2250, crop_n_layers=1, crop_overlap_ratio=512 / 1500)
    assert crops[1:] == [
        CropBox(0, 0, 1381, 1006, layer=1),
        CropBox(0, 494, 1381, 1500, layer=1),
        CropBox(869, 0, 2250, 1006, layer=1),
        CropBox(869, 494, 2250, 1500, layer=1),
    ]


def test_empty_crops_of_tiny_images_are_left_out():
    crops = generate_crop_boxes(1, 3, crop_n_layers=2, crop_overlap_ratio=0.3)
    assert [crop.layer for crop in crops] == [0, 1, 1, 2, 2, 2]
    assert all(crop.height == 1 and crop.width > 0 for crop in crops)


@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    layers=st.integers(0, 3),
    ratio=st.floats(0, 1),
)
def test_every_layer_covers_the_image(height: int, width: int, layers: int, ratio: float):
    crops = generate_crop_boxes(height, width, crop_n_layers=layers, crop_overlap_ratio=ratio)
    for layer in range(layers + 1):
        of_layer = [crop for crop in crops if crop.layer == layer]
        assert 1 <= len(of_layer) <= (2**layer) ** 2
        assert all(0 <= c.x0 < c.x1 <= width and 0 <= c.y0 < c.y1 <= height for c in of_layer)
        columns = {x for crop in of_layer for x in range(crop.x0, crop.x1)}
        rows = {y for crop in of_layer for y in range(crop.y0, crop.y1)}
        assert columns == set(range(width))
        assert rows == set(range(height))
