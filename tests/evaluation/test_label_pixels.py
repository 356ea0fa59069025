from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from amg_pipeline.evaluation.label_pixels import labels_of_picture

#: Of 256 colours.
GRADIENT = np.zeros((16, 16, 3), np.uint8)
GRADIENT[..., 0] = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_numbers_stay_as_they_are(dtype: type[np.generic]) -> None:
    values = np.array([[0, 1], [200, 7]], dtype)

    labels = labels_of_picture(Image.fromarray(values))

    assert labels.dtype == dtype
    assert labels.tolist() == values.tolist()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_colour_is_one_number(mode: str) -> None:
    picture = Image.new(mode, (2, 1))
    picture.putpixel((1, 0), (1, 2, 3))

    assert labels_of_picture(picture).tolist() == [[0, 0x010203]]


def test_more_colours_than_allowed_are_refused() -> None:
    picture = Image.fromarray(GRADIENT)

    assert len(np.unique(labels_of_picture(picture, max_colours=256))) == 256
    with pytest.raises(ValueError, match="more than 255 colours"):
        labels_of_picture(picture, max_colours=255)


@pytest.mark.parametrize("mode", ["CMYK", "F"])
def test_other_pixels_are_refused(mode: str) -> None:
    with pytest.raises(ValueError, match=mode):
        labels_of_picture(Image.new(mode, (2, 2)))
