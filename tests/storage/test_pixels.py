from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from amg_pipeline.storage.images import decode_image
from tests.storage.pictures import BLACK, BLUE, GREEN, RED, WHITE, encode, photo

# Colours


def one_pixel(image: Image.Image, kind: str, **options: Any) -> tuple[int, ...]:
    return tuple(decode_image(encode(image, kind, **options))[0, 0].tolist())


def test_gray() -> None:
    assert one_pixel(Image.new("L", (2, 2), 77), "PNG") == (77, 77, 77)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit(kind: str) -> None:
    image = Image.new("1", (9, 2))
    image.putpixel((0, 0), 1)
    pixels = decode_image(encode(image, kind))
    assert tuple(pixels[0, 0]) == WHITE
    assert tuple(pixels[0, 1]) == BLACK


def test_palette() -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([*BLACK, *GREEN])
    assert one_pixel(image, "PNG") == GREEN
    assert one_pixel(image, "GIF") == GREEN


@pytest.mark.parametrize(
    "transparency", [1, b"\xff\x00"], ids=["one index", "an alpha value per index"]
)
def test_transparent_palette_lies_on_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([*BLACK, *GREEN])
    image.putpixel((1, 1), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = decode_image(encode(image, "PNG", transparency=transparency))
    assert tuple(pixels[0, 0]) == WHITE
    assert tuple(pixels[1, 1]) == BLACK


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_is_composited_over_white(kind: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 255, 128))
    image.putpixel((1, 0), (255, 0, 0, 0))
    options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = decode_image(encode(image, kind, **options))
    assert tuple(pixels[0, 0]) == (127, 127, 255)
    assert tuple(pixels[0, 1]) == WHITE


def test_gray_with_alpha() -> None:
    assert one_pixel(Image.new("LA", (1, 1), (0, 64)), "PNG") == (191, 191, 191)


def test_transparent_colour_of_rgb() -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), BLUE)
    pixels = decode_image(encode(image, "PNG", transparency=RED))
    assert tuple(pixels[0, 0]) == WHITE
    assert tuple(pixels[0, 1]) == BLUE


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    """JPEG stores it inverted, as Adobe does; TIFF does not."""
    pixels = decode_image(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), kind))
    assert np.abs(pixels.astype(int) - RED).max() <= 3


def test_ycbcr() -> None:
    image = Image.new("RGB", (8, 8), BLUE).convert("YCbCr")
    assert np.abs(decode_image(encode(image, "TIFF")).astype(int) - BLUE).max() <= 3


def test_lab() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    image = ImageCms.applyTransform(Image.new("RGB", (4, 4), GREEN), to_lab)
    assert image is not None
    # 8 bits per channel of Lab are coarse.
    assert np.abs(decode_image(encode(image, "TIFF")).astype(int) - GREEN).max() <= 8


GRAY16 = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
GRAY16_SHOWN = [0, 0, 1, 255]


def test_16_bit_gray_keeps_its_upper_byte() -> None:
    png = encode(Image.fromarray(GRAY16), "PNG")
    assert decode_image(png)[0, :, 0].tolist() == GRAY16_SHOWN
    for order in ("<", ">"):
        sink = io.BytesIO()
        tifffile.imwrite(sink, GRAY16, byteorder=order, photometric="minisblack")
        pixels = decode_image(sink.getvalue())
        assert pixels[0, :, 0].tolist() == GRAY16_SHOWN
        assert (pixels[..., 0] == pixels[..., 2]).all()


def test_16_bit_gray_where_white_is_zero() -> None:
    sink = io.BytesIO()
    tifffile.imwrite(sink, GRAY16, photometric="miniswhite")
    assert decode_image(sink.getvalue())[0, :, 0].tolist() == [255, 255, 254, 0]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        pytest.param(np.int32([0, 100, 255]), [0, 100, 255], id="32 bits holding 8"),
        pytest.param(np.int32([0, 256, 65535]), [0, 1, 255], id="32 bits holding 16"),
        pytest.param(np.int32([-1000, 0, 1000]), [0, 128, 255], id="32 bits with sign"),
        pytest.param(np.float32([0.0, 0.5, 1.0]), [0, 128, 255], id="float up to 1"),
        pytest.param(np.float32([-5.0, 0.0, 5.0]), [0, 128, 255], id="float of any range"),
        pytest.param(np.float32([np.nan, np.inf, 1.0]), [0, 0, 255], id="float without value"),
        pytest.param(np.float32([7.0, 7.0, 7.0]), [0, 0, 0], id="float, constant"),
    ],
)
def test_32_bit_values(values: np.ndarray, shown: list[int]) -> None:
    sink = io.BytesIO()
    tifffile.imwrite(sink, values[np.newaxis], photometric="minisblack")
    pixels = decode_image(sink.getvalue())
    assert pixels[0, :, 1].tolist() == shown


def test_premultiplied_alpha() -> None:
    pixels = np.zeros((1, 2, 4), np.uint8)
    pixels[0, 0] = (128, 0, 0, 128)
    sink = io.BytesIO()
    tifffile.imwrite(sink, pixels, photometric="rgb", extrasamples=["assocalpha"])
    shown = decode_image(sink.getvalue())
    assert tuple(shown[0, 0]) == (255, 127, 127)
    assert tuple(shown[0, 1]) == WHITE


# Orientation

STORED = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
#: What a viewer shows for each value of the EXIF tag (TIFF 6.0, tag 274).
UPRIGHT = {
    1: STORED,
    2: STORED[:, ::-1],
    3: STORED[::-1, ::-1],
    4: STORED[::-1],
    5: STORED.T,
    6: STORED[::-1].T,
    7: STORED[::-1, ::-1].T,
    8: STORED[:, ::-1].T,
    9: STORED,
    0: STORED,
}


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(STORED).convert("RGB")
    if kind == "TIFF":
        return encode(image, kind, tiffinfo={0x0112: orientation})
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    return encode(image, kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", list(UPRIGHT))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    data = oriented(kind, orientation)
    np.testing.assert_array_equal(decode_image(data)[..., 0], UPRIGHT[orientation])
    as_stored = decode_image(data, exif_orientation=False)
    np.testing.assert_array_equal(as_stored[..., 0], STORED)


def test_exif_orientation_of_jpeg() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(photo(24, 16), "JPEG", exif=exif, quality=95)
    assert decode_image(data).shape == (24, 16, 3)
    assert decode_image(data, exif_orientation=False).shape == (16, 24, 3)


def test_damaged_exif_counts_as_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> None:
        raise SyntaxError("not a TIFF file (header b'junk' not valid)")

    monkeypatch.setattr(Image.Image, "getexif", fail)
    assert decode_image(encode(photo(), "JPEG")).shape == (16, 24, 3)
