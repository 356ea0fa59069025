"""Masks over their image with matplotlib."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray

from amg_pipeline import AutomaticMaskGenerator, load_masks, show_masks
from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.report.show import FILL_ALPHA, blend_layer, draw_layer
from tests.export.stored_runs import IMAGES, write_run
from tests.fakes import DiscModel, Shape, coordinate_image
from tests.report.images import box_mask, make_image

WHOLE = np.ones((30, 40), np.bool_)
PART = box_mask((30, 40), slice(5, 20), slice(5, 20))
DOT = box_mask((30, 40), slice(9, 12), slice(9, 12))


@pytest.fixture(autouse=True)
def pyplot() -> Iterator[Any]:
    matplotlib.use("agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def drawn(ax: Any) -> NDArray[np.float32]:
    """The layer that was drawn last."""
    return np.asarray(ax.images[-1].get_array())


def test_smaller_masks_lie_on_larger_ones() -> None:
    layer = draw_layer([DOT, WHOLE, PART], height=30, width=40, borders=False)

    colours = [tuple(layer[at]) for at in ((0, 0), (6, 6), (10, 10))]
    assert len(set(colours)) == 3
    assert all(colour[3] == np.float32(FILL_ALPHA) for colour in colours)
    # Colours are given from the largest to the smallest, whatever the order of the list.
    again = draw_layer([WHOLE, PART, DOT], height=30, width=40, borders=False)
    np.testing.assert_array_equal(layer, again)


def test_colours_go_by_the_seed() -> None:
    layers = [draw_layer([PART], height=30, width=40, seed=seed) for seed in (0, 0, 1)]

    np.testing.assert_array_equal(layers[0], layers[1])
    assert (layers[0] != layers[2]).any()
    assert (layers[0][~PART][:, 3] == 0).all()


def test_borders_are_thin_lines() -> None:
    layer = draw_layer([PART], height=30, width=40)

    is_line = (layer == np.float32([0, 0, 1, 0.4])).all(axis=2)
    assert is_line.sum() == 4 * 14
    assert not is_line[6:19, 6:19].any()
    assert not is_line[~PART].any()


def test_every_output_mode_gives_the_same_picture() -> None:
    image = coordinate_image(48, 64)
    model = DiscModel([Shape("disc", 20, 20, 10, 8), Shape("rectangle", 45, 30, 12, 9)])
    layers = []
    for mode in ("binary_mask", "uncompressed_rle", "coco_rle"):
        generator = AutomaticMaskGenerator(
            model,
            points_per_side=8,
            output_mode=mode,
            pred_iou_thresh=0.5,
            stability_score_thresh=0.5,
        )
        found = generator.generate(image)
        assert len(found) >= 2
        layers.append(drawn(show_masks(image, found)))

    assert (layers[0][..., 3] > 0).any()
    np.testing.assert_array_equal(layers[0], layers[1])
    np.testing.assert_array_equal(layers[0], layers[2])


def test_rows_of_the_masks_are_shown(tmp_path: Path) -> None:
    table = load_masks(str(write_run(tmp_path))).to_table()
    row = table.to_pylist()[0]
    image = np.zeros((*IMAGES[row["image_id"]], 3), np.uint8)

    shown = [row, row["masks"], table["masks"][0], table.slice(0, 1).to_struct_array()[0]]
    layers = [drawn(show_masks(image, masks)) for masks in shown]

    assert (layers[0][..., 3] > 0).any()
    for layer in layers[1:]:
        np.testing.assert_array_equal(layer, layers[0])


def test_axes_may_be_given_and_are_returned(pyplot: Any) -> None:
    _, (first, second) = pyplot.subplots(1, 2)
    image = np.zeros((30, 40, 3), np.uint8)

    assert show_masks(image, [PART], ax=second) is second
    assert len(second.images) == 2
    assert not first.images
    assert not second.axison


def test_image_without_masks_is_shown_as_it_is() -> None:
    ax = show_masks(np.zeros((30, 40), np.uint8), [])

    assert (drawn(ax)[..., 3] == 0).all()


def test_masks_of_another_image_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"30 x 41 pixels .* Received: 30 x 40"):
        show_masks(np.zeros((30, 41, 3), np.uint8), [{"segmentation": PART, "area": 1}])
    with pytest.raises(StorageError, match="sum to"):
        show_masks(np.zeros((30, 41, 3), np.uint8), make_image([PART]))


@pytest.mark.parametrize("masks", [None, 7, "masks", [7], [{"area": 3}], {"area": 3}])
def test_what_is_no_mask_is_refused(masks: Any) -> None:
    with pytest.raises(ConfigError, match="Received"):
        show_masks(np.zeros((30, 40, 3), np.uint8), masks)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ConfigError, match="shape"):
        show_masks(np.zeros(3), [])


def test_python_without_matplotlib_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ConfigError, match=r"pip install 'amg_pipeline\[show\]'"):
        show_masks(np.zeros((30, 40, 3), np.uint8), [])


def test_layer_is_blended_by_its_opacity() -> None:
    layer = np.zeros((1, 2, 4), np.float32)
    layer[0, 1] = [1.0, 0.5, 0.0, 0.5]

    picture = blend_layer(np.full((1, 2, 3), 100, np.uint8), layer)

    assert picture.tolist() == [[[100, 100, 100], [178, 114, 50]]]
