from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.sam import transforms
from amg_pipeline.sam.transforms import (
    longest_side_size,
    pad_to_square,
    resize_uint8,
    scale_coordinates,
)
from tests.sam.small_sam import as_arrays

SIDES = st.integers(1, 90)


def pillow_resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))


def noise(height: int, width: int, *, batch: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    # Full range, with runs of black and white, where rounding and clipping show.
    rng = np.random.default_rng((seed, height, width))
    return np.clip(rng.integers(-80, 336, (batch, height, width, 3)), 0, 255).astype(np.uint8)


@given(SIDES, SIDES, SIDES, SIDES)
@example(1, 90, 3, 64)  # one row
@example(90, 1, 64, 1)  # one column
@example(48, 64, 48, 64)  # nothing to do
@example(48, 64, 48, 32)  # only one pass
@example(1, 1, 7, 5)
@example(80, 44, 64, 35)  # a tall image shrunk, where the order of the passes depends on Pillow
@example(60, 20, 40, 10)  # lost rows are twice the lost columns: where the order of passes changes
@example(61, 20, 40, 10)
@settings(max_examples=40)
def test_resize_uint8_equals_pillow_exactly(
    height: int, width: int, new_height: int, new_width: int
) -> None:
    image = noise(height, width)
    expected = pillow_resize(image[0], (new_height, new_width))
    resized = as_arrays(resize_uint8(image, (new_height, new_width)))
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized[0], expected)


@pytest.mark.parametrize(
    ("size", "new_size"),
    [
        pytest.param((1, 5000), (1, 64), id="very-wide"),
        pytest.param((5000, 1), (64, 1), id="very-tall"),
        pytest.param((300, 451), (681, 1024), id="up-to-1024"),
        pytest.param((1300, 700), (64, 34), id="down-tall"),
        pytest.param((1300, 300), (64, 15), id="down-very-tall"),
    ],
)
def test_resize_uint8_of_extreme_sizes_equals_pillow_exactly(
    size: tuple[int, int], new_size: tuple[int, int]
) -> None:
    image = noise(*size)
    expected = pillow_resize(image[0], new_size)
    np.testing.assert_array_equal(as_arrays(resize_uint8(image, new_size))[0], expected)


@pytest.mark.parametrize("may_take_rows_first", [True, False], ids=["pillow-13", "pillow-12"])
def test_resize_uint8_takes_the_axes_in_pillows_order(
    may_take_rows_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transforms, "_MAY_TAKE_ROWS_FIRST", may_take_rows_first)
    orders: dict[str, list[tuple[int, int]]] = {"columns": [], "rows": []}
    for (height, width), (new_height, new_width) in [
        ((90, 20), (64, 14)),
        ((90, 76), (64, 50)),
        ((20, 90), (14, 64)),
        ((20, 90), (30, 135)),
    ]:
        image = noise(height, width)
        resized = as_arrays(resize_uint8(image, (new_height, new_width)))[0]
        columns_first = pillow_resize(
            pillow_resize(image[0], (height, new_width)), (new_height, new_width)
        )
        rows_first = pillow_resize(
            pillow_resize(image[0], (new_height, width)), (new_height, new_width)
        )
        assert (columns_first != rows_first).any()
        order = "columns" if (resized == columns_first).all() else "rows"
        np.testing.assert_array_equal(resized, columns_first if order == "columns" else rows_first)
        orders[order].append((height, width))
    assert orders["rows"] == ([(90, 20)] if may_take_rows_first else [])


def test_resize_uint8_treats_the_images_of_a_batch_alike() -> None:
    images = noise(20, 30, batch=3)
    resized = as_arrays(resize_uint8(images, (41, 17)))
    for image, result in zip(images, resized, strict=True):
        np.testing.assert_array_equal(result, pillow_resize(image, (41, 17)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_resize_uint8_of_whole_float_levels_equals_uint8(dtype: Any) -> None:
    image = noise(23, 31)
    expected = as_arrays(resize_uint8(image, (64, 50)))
    actual = as_arrays(resize_uint8(ops.convert_to_tensor(image.astype(dtype)), (64, 50)))
    np.testing.assert_array_equal(actual, expected)


def test_resize_uint8_rounds_float_levels_half_up_and_clips_them() -> None:
    levels = np.array([-3.0, 0.4, 0.5, 254.49, 254.5, 300.0], np.float32)
    image = np.broadcast_to(levels[None, None, :, None], (1, 2, 6, 3))
    resized = as_arrays(resize_uint8(image, (2, 6)))
    np.testing.assert_array_equal(resized[0, 0, :, 0], [0, 0, 1, 254, 255, 255])


def test_resize_uint8_in_a_graph_of_open_sizes_equals_pillow_exactly() -> None:
    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec((None, None, None, 3), tf.uint8),
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((), tf.int32),
        ]
    )
    def resize(images: Any, height: Any, width: Any) -> Any:
        return resize_uint8(images, (height, width))

    sizes = [((30, 40), (48, 64)), ((90, 70), (64, 50)), ((48, 64), (48, 64)), ((99, 31), (64, 20))]
    for size, new_size in sizes:
        image = noise(*size, batch=2)
        resized = resize(image, *new_size).numpy()
        for i in range(2):
            np.testing.assert_array_equal(resized[i], pillow_resize(image[i], new_size))


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([64, 256, 1024]))
def test_longest_side_size_fills_the_frame_with_the_references_rounding(
    height: int, width: int, img_size: int
) -> None:
    new_height, new_width = longest_side_size(height, width, img_size)
    assert max(new_height, new_width) == img_size
    scale = img_size * 1.0 / max(height, width)
    assert new_height == max(int(height * scale + 0.5), 1)
    assert new_width == max(int(width * scale + 0.5), 1)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        pytest.param((480, 640), (768, 1024), id="up"),
        pytest.param((3000, 2000), (1024, 683), id="down-rounded-up"),
        pytest.param((2000, 3001), (682, 1024), id="down-rounded-down"),
        pytest.param((1365, 2730), (512, 1024), id="exact"),
        pytest.param((3, 2048), (2, 1024), id="half-is-rounded-up"),
        pytest.param((1, 5000), (1, 1024), id="never-below-one-pixel"),
    ],
)
def test_longest_side_size_of_known_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert longest_side_size(*size, 1024) == expected


def test_longest_side_size_of_tensors_equals_that_of_ints() -> None:
    rng = np.random.default_rng(0)
    for height, width in [(1, 5000), (3, 2048), *rng.integers(1, 6000, (20, 2)).tolist()]:
        expected = longest_side_size(height, width, 1024)
        tensors = longest_side_size(tf.constant(height), tf.constant(width), 1024)
        assert all(side.dtype == tf.int32 for side in tensors)
        assert tuple(int(side) for side in tensors) == expected


def test_scale_coordinates_scales_points_and_boxes_by_axis() -> None:
    points = np.array([[[10.0, 20.0], [0.5, 99.0]]])
    scaled = as_arrays(scale_coordinates(points, (100, 50), (64, 32)))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, points * 0.64, rtol=1e-6)
    boxes = np.array([[[10, 20, 30, 40]]])
    scaled = as_arrays(scale_coordinates(boxes, (100, 200), (50, 20)))
    np.testing.assert_allclose(scaled, [[[1.0, 10.0, 3.0, 20.0]]], rtol=1e-6)


@pytest.mark.parametrize("size", [(5, 8), (8, 3), (8, 8)])
def test_pad_to_square_adds_zeros_right_and_below(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).uniform(1, 2, (2, *size, 3)).astype(np.float32)
    padded = as_arrays(pad_to_square(ops.convert_to_tensor(image), 8))
    assert padded.shape == (2, 8, 8, 3)
    np.testing.assert_array_equal(padded[:, : size[0], : size[1]], image)
    assert np.count_nonzero(padded) == image.size
