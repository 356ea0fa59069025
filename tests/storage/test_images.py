from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from amg_pipeline.errors import (
    ImageDecodeError,
    ImageFetchError,
    ImageNotFoundError,
    ImageTooLargeError,
    StorageAccessError,
    TransientStorageError,
)
from amg_pipeline.records import ImageRef
from amg_pipeline.storage import images
from amg_pipeline.storage.images import decode_image, load_image
from tests.storage.doubles import EAGER
from tests.storage.pictures import BLUE, RED, WHITE, encode, photo
from tests.storage.test_object_store import HOSTILE_NAMES


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def write(path: Path, data: bytes) -> ImageRef:
    path.write_bytes(data)
    return ImageRef(path.name, str(path))


# Formats


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        pytest.param("JPEG", {"quality": 95}, 12, id="jpeg"),
        pytest.param("JPEG", {"quality": 95, "progressive": True}, 12, id="progressive jpeg"),
        pytest.param("PNG", {}, 0, id="png"),
        pytest.param("WEBP", {"lossless": True}, 0, id="webp"),
        pytest.param("TIFF", {}, 0, id="tiff"),
        pytest.param("TIFF", {"compression": "tiff_lzw"}, 0, id="compressed tiff"),
        pytest.param("BMP", {}, 0, id="bmp"),
    ],
)
def test_formats(kind: str, options: dict[str, Any], tolerance: int) -> None:
    pixels = decode_image(encode(photo(), kind, **options))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (16, 24, 3)
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    difference = np.abs(pixels.astype(int) - np.asarray(photo()).astype(int))
    assert difference.max() <= tolerance


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_animations(kind: str) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in (RED, BLUE)]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode_image(data) == RED).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF"])
def test_extreme_shapes(size: tuple[int, int], kind: str) -> None:
    pixels = decode_image(encode(Image.new("RGB", size, WHITE), kind))
    assert pixels.shape == (size[1], size[0], 3)
    assert (pixels >= 254).all()


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(ImageDecodeError, match="JPEG, PNG"):
        decode_image(encode(photo(), kind))


def test_postscript_is_refused() -> None:
    """Pillow would start Ghostscript for it."""
    with pytest.raises(ImageDecodeError, match="Received: text"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


# Faults


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 2**16), flip=st.integers(1, 255))
def test_a_damaged_png_is_no_image_if_pillow_refuses_it(place: int, flip: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    data = bytearray(encode(Image.fromarray(noise), "PNG"))
    first, last = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    data[first + place % (last - first)] ^= flip
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError):
        with pytest.raises(ImageDecodeError):
            decode_image(bytes(data))
    else:
        decode_image(bytes(data))


@pytest.mark.parametrize(
    ("data", "received"),
    [
        pytest.param(b"", "zero bytes", id="empty"),
        pytest.param(b"hello, I am no image\n", "text", id="text"),
        pytest.param(b"%PDF-1.4\n\x00", "a PDF", id="pdf"),
        pytest.param(b"\x00\x01\x02" * 40, "something else", id="binary"),
        pytest.param(encode(photo(200, 200), "JPEG")[:-400], "truncated", id="truncated jpeg"),
        pytest.param(encode(photo(200, 200), "JPEG")[:40], "Error", id="jpeg header only"),
        pytest.param(encode(photo(), "PNG")[:60], "Received", id="truncated png"),
        pytest.param(encode(photo(), "WEBP")[:60], "Received", id="truncated webp"),
        pytest.param(encode(photo(), "GIF")[:-30], "Received", id="truncated gif"),
        pytest.param(encode(photo(), "BMP")[:-30], "truncated", id="truncated bmp"),
        pytest.param(b"II*\0", "Received", id="tiff header only"),
        pytest.param(png_header(0, 5), "no pixels", id="zero-sized"),
        pytest.param(b"GIF89a" + bytes(7) + b";", "no more images", id="gif without frames"),
        pytest.param(png_header(5, 5), "Received", id="png without pixels"),
        pytest.param(
            b"BM" + encode(photo(), "BMP")[2:18] + bytes(8) + bytes(40), "Received", id="bmp 0x0"
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_no_image(data: bytes, received: str) -> None:
    with pytest.raises(ImageDecodeError, match=received) as caught:
        decode_image(data)
    message = str(caught.value)
    for unstable in ("0x", "BytesIO", "/tmp", "<"):
        assert unstable not in message
    with pytest.raises(ImageDecodeError) as again:
        decode_image(data)
    assert str(again.value) == message


def test_messages_of_pillow_that_change_are_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image, *, exif_orientation: bool) -> None:
        raise OSError(f"cannot identify image file {io.BytesIO()}")

    monkeypatch.setattr(images, "image_to_rgb", fail)
    with pytest.raises(ImageDecodeError, match="data that end in OSError") as caught:
        decode_image(encode(photo(), "PNG"))
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_limit_of_pixels_is_exact(kind: str) -> None:
    data = encode(photo(24, 16), kind)
    assert decode_image(data, max_pixels=24 * 16).shape == (16, 24, 3)
    with pytest.raises(ImageTooLargeError, match=r"images\.max_pixels"):
        decode_image(data, max_pixels=24 * 16 - 1)


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_limit_of_pillow_itself_counts_as_too_large(kind: str) -> None:
    with pytest.raises(ImageTooLargeError):
        decode_image(encode(photo(24, 16), kind), max_pixels=10)


def test_decompression_bomb_is_not_decoded() -> None:
    bomb = png_header(60_000, 60_000)
    assert len(bomb) < 100
    with pytest.raises(ImageTooLargeError, match="60000 x 60000"):
        decode_image(bomb)


def test_limit_above_pillows_own_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow warns from its limit on and refuses from twice that on; ours may be higher."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"):
        assert decode_image(encode(photo(), kind)).shape == (16, 24, 3)
        assert Image.MAX_IMAGE_PIXELS == 10


def test_pillows_limit_is_put_back_after_threads_overlapped() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = encode(photo(300, 300), "WEBP")
    threads = [
        threading.Thread(target=decode_image, args=(data,), kwargs={"max_pixels": 90_000 + extra})
        for extra in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS


def test_lack_of_memory_is_no_fault_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image, *, exif_orientation: bool) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "image_to_rgb", fail)
    with pytest.raises(MemoryError):
        decode_image(encode(photo(), "PNG"))


# Fetching


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_load_with_hostile_names(tmp_path: Path, name: str) -> None:
    ref = write(tmp_path / name, encode(photo(), "PNG"))
    decoded = load_image(ref)
    assert decoded.ref == ref
    assert decoded.pixels.shape == (16, 24, 3)


def test_load_through_fsspec() -> None:
    fsspec.filesystem("memory").pipe_file("/images/a b.png", encode(photo(), "PNG"))
    assert load_image(ImageRef("a", "memory://images/a b.png")).pixels.shape == (16, 24, 3)


def test_missing_image(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    for uri in (f"{tmp_path}/absent.jpg", f"{tmp_path}/gone.jpg", "memory://absent.jpg"):
        with pytest.raises(ImageNotFoundError) as caught:
            load_image(ImageRef("a", uri))
        assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "fault", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
)
def test_unreadable_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError) -> None:
    def fail(path: Path) -> bytes:
        raise fault

    ref = write(tmp_path / "a.jpg", b"")
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ImageFetchError) as caught:
        load_image(ref)
    assert type(caught.value) is ImageFetchError
    assert str(tmp_path) not in str(caught.value)


def test_folder_in_place_of_an_image(tmp_path: Path) -> None:
    with pytest.raises(ImageFetchError, match="directory"):
        load_image(ImageRef("a", str(tmp_path)))


def test_transient_faults_are_retried_and_then_stay_transient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = write(tmp_path / "a.png", encode(photo(), "PNG"))
    read, faults = Path.read_bytes, [TimeoutError(), ConnectionResetError()]

    def flaky(path: Path) -> bytes:
        if faults:
            raise faults.pop()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", flaky)
    assert load_image(ref, retry=EAGER).pixels.shape == (16, 24, 3)
    faults.extend(TimeoutError() for _ in range(EAGER.attempts))
    with pytest.raises(TransientStorageError):
        load_image(ref, retry=EAGER)


def test_a_store_that_refuses_the_caller_is_no_fault_of_the_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(uri: str, **_: object) -> bytes:
        raise StorageAccessError("403")

    monkeypatch.setattr(images, "read_uri", refuse)
    with pytest.raises(StorageAccessError):
        load_image(ImageRef("a.png", "s3://bucket/a.png"), retry=EAGER)


@pytest.mark.parametrize("uri", ["http://host:99999/x.jpg", "http://[::1/x.jpg"])
def test_malformed_address_is_a_fault_of_its_image(uri: str) -> None:
    with pytest.raises(ImageFetchError, match=r"well formed.*ValueError") as caught:
        load_image(ImageRef("a", uri), retry=EAGER)
    assert "http" not in str(caught.value)
