"""One shard from start to commit: the fate of every image, order, memory, and what is recorded."""

from __future__ import annotations

import errno
import os
import struct
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline import shard_runner
from amg_pipeline.config import load_config
from amg_pipeline.errors import ShardError, StorageError, TransientStorageError
from amg_pipeline.planning import Plan
from amg_pipeline.records import (
    DecodedImage,
    ImageRef,
    ImageResult,
    MaskRecord,
    Shard,
    ShardReport,
)
from amg_pipeline.shard_runner import (
    MaskGenerator,
    ShardRunner,
    make_mask_generator,
    report_to_stats,
)
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.local_files import LocalFiles
from amg_pipeline.storage.mask_table import decode_table
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from tests.fakes import DiscModel, Shape, coordinate_image
from tests.photo_runs import (
    Found,
    plan_photos,
    stored_masks,
    threshold_masks,
    write_photo,
    write_photos,
)
from tests.storage.doubles import EAGER

Pixels = NDArray[np.uint8]


def make_runner(
    plan: Plan, *, generate: MaskGenerator = threshold_masks, threads: int = 2, **options: Any
) -> ShardRunner:
    arguments: dict[str, Any] = {
        "directory": plan.run_directory,
        "plan": plan.stored,
        "metadata": plan.table_metadata,
        "generate": generate,
        "images": plan.config.images,
        "decode_threads": threads,
        **options,
    }
    return ShardRunner(**arguments)


def shards_of(plan: Plan) -> list[Shard]:
    return list(plan.run_directory.shards(plan.stored))


def rows_of(plan: Plan, shard_id: int = 0) -> dict[str, ImageResult]:
    rows = decode_table(plan.run_directory.read_shard(plan.stored, shard_id))
    return {row.ref.image_id: row for row in rows}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "in", 6)


@pytest.fixture
def plan(photos: Path, tmp_path: Path) -> Plan:
    """One shard of six photos."""
    return plan_photos(photos, tmp_path / "out", shard_size=6)


# What is written


def test_rows_hold_the_masks_of_their_images(plan: Plan, photos: Path) -> None:
    seen: list[str] = []
    make_runner(plan).run(
        shards_of(plan)[0], on_image=lambda result: seen.append(result.ref.image_id)
    )

    rows = rows_of(plan)
    assert list(rows) == seen == sorted(path.name for path in photos.iterdir())
    for name, row in rows.items():
        with Image.open(photos / name) as photo:
            pixels = np.asarray(photo)
        expected = threshold_masks(pixels).records
        assert row.status == "ok"
        assert (row.height, row.width) == pixels.shape[:2]
        assert [m.rle.counts.tolist() for m in row.masks] == [
            m.rle.counts.tolist() for m in expected
        ]


def test_report_counts_rows_masks_bytes_and_seconds(plan: Plan, photos: Path) -> None:
    (photos / "003.png").write_bytes(b"")

    report = make_runner(plan).run(shards_of(plan)[0])

    rows = rows_of(plan).values()
    assert report.shard_id == 0
    assert report.images == {"ok": 5, "decode_error": 1}
    assert report.unsettled == 0
    assert report.masks == sum(len(row.masks) for row in rows) >= 15
    assert report.bytes_written == len(plan.run_directory.read_shard(plan.stored, 0))
    assert set(report.stage_seconds) == {
        "load",
        "generate",
        "encode_masks",
        "encode_table",
        "commit",
    }
    assert all(seconds >= 0 for seconds in report.stage_seconds.values())


def test_report_is_stored_after_the_commit(plan: Plan) -> None:
    report = make_runner(plan).run(shards_of(plan)[0])

    (stored,) = plan.run_directory.read_stats([0])
    finished_at = stored.pop("finished_at")
    assert abs(finished_at - time.time()) < 60
    expected = report_to_stats(report)
    del expected["finished_at"]
    assert stored == expected


def test_report_to_stats_rounds_seconds() -> None:
    report = ShardReport(3, {"ok": 2}, 1, 5, 100, {"load": 1.23456789}, 2.00004)

    stats = report_to_stats(report)
    del stats["finished_at"]
    assert stats == {
        "shard_id": 3,
        "images": {"ok": 2},
        "unsettled": 1,
        "masks": 5,
        "bytes_written": 100,
        "elapsed_seconds": 2.0,
        "stage_seconds": {"load": 1.2346},
    }


def test_images_are_read_as_the_settings_say(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (8, 3)).save(folder / "turned.jpg", exif=exif)
    sizes = {}
    for setting in ("true", "false"):
        plan = plan_photos(folder, tmp_path / setting, f"images.exif_orientation={setting}")
        make_runner(plan).run(shards_of(plan)[0])
        row = rows_of(plan)["turned.jpg"]
        sizes[setting] = (row.width, row.height)

    assert sizes == {"true": (3, 8), "false": (8, 3)}


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
def test_bytes_do_not_depend_on_threads(plan: Plan, tmp_path: Path, threads: int) -> None:
    make_runner(plan, threads=threads).run(shards_of(plan)[0])
    written = plan.run_directory.read_shard(plan.stored, 0)

    make_runner(plan, threads=3).run(shards_of(plan)[0])

    assert plan.run_directory.read_shard(plan.stored, 0) == written


# Bad input: a row each, and the run goes on


def _png_of_width_zero() -> bytes:
    def chunk(body: bytes) -> bytes:
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", crc32(body))

    header = b"IHDR" + struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT" + compress(b"")) + chunk(b"IEND")


def _truncated_jpeg(path: Path) -> bytes:
    write_photo(path, height=64, width=64)
    return path.read_bytes()[:700]


def _make_bad_input(folder: Path) -> Path:
    """A manifest of one image of every bad kind, and good ones between and after them."""
    files: dict[str, Callable[[Path], Any]] = {
        "zero-bytes.jpg": lambda path: path.write_bytes(b""),
        "text.jpg": lambda path: path.write_text("I am no photo\n"),
        "truncated.jpg": lambda path: path.write_bytes(_truncated_jpeg(path)),
        "bomb.png": lambda path: write_photo(path, height=200, width=101),
        "zero-sized.png": lambda path: path.write_bytes(_png_of_width_zero()),
        "folder.jpg": lambda path: path.mkdir(),
        "missing.jpg": lambda path: None,
        "denied.png": write_photo,
        "1x1.png": lambda path: write_photo(path, height=1, width=1),
        "1x5000.png": lambda path: write_photo(path, height=1, width=5000),
        "5000x1.png": lambda path: write_photo(path, height=5000, width=1),
        "with space.png": write_photo,
        "with'\"quotes.png": write_photo,
        "ünï-写真-📷.png": write_photo,
        "good.png": write_photo,
    }
    lines = ["uri,image_id"]
    for name, write in files.items():
        write(folder / name)
        quoted = name.replace('"', '""')
        lines.append(f'"{folder}/{quoted}","{quoted}"')
    lines.append("nosuch://bucket/a.jpg,scheme.jpg")
    manifest = folder / "list.csv"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    return manifest


EXPECTED_ROWS = {
    "zero-bytes.jpg": ("decode_error", "ImageDecodeError", "zero bytes"),
    "text.jpg": ("decode_error", "ImageDecodeError", "text"),
    "truncated.jpg": ("decode_error", "ImageDecodeError", "truncated"),
    "bomb.png": ("too_large", "ImageTooLargeError", "101 x 200"),
    "zero-sized.png": ("decode_error", "ImageDecodeError", "no pixels"),
    "folder.jpg": ("fetch_error", "ImageFetchError", "Is a directory"),
    "missing.jpg": ("fetch_error", "ImageNotFoundError", "nothing is there"),
    "denied.png": ("fetch_error", "ImageFetchError", "access must be permitted"),
    "scheme.jpg": ("fetch_error", "ConfigError", "scheme"),
}
EXPECTED_SIZES = {
    "1x1.png": (1, 1),
    "1x5000.png": (5000, 1),
    "5000x1.png": (1, 5000),
    "with space.png": (8, 6),
    "with'\"quotes.png": (8, 6),
    "ünï-写真-📷.png": (8, 6),
    "good.png": (8, 6),
}


def test_bad_input_gets_rows_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = _make_bad_input(tmp_path)
    plan = plan_photos(manifest, tmp_path / "out", "images.max_pixels=20000", shard_size=99)
    read = LocalFiles.read

    def read_unless_denied(self: LocalFiles, key: str) -> bytes:
        # Permissions do not bind the superuser, under whom tests often run.
        if f"{self.root}{key}".endswith("denied.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(self, key)

    monkeypatch.setattr(LocalFiles, "read", read_unless_denied)

    report = make_runner(plan).run(shards_of(plan)[0])

    rows = rows_of(plan)
    assert rows.keys() == EXPECTED_ROWS.keys() | EXPECTED_SIZES.keys()
    for name, (status, error_type, message) in EXPECTED_ROWS.items():
        row = rows[name]
        assert (row.status, row.error_type) == (status, error_type), name
        assert message in (row.error_message or ""), name
        assert row.masks == ()
        assert str(tmp_path) not in (row.error_message or "")
    for name, size in EXPECTED_SIZES.items():
        assert rows[name].status == "ok", name
        assert (rows[name].width, rows[name].height) == size
        assert len(rows[name].masks) >= 3
    assert report.images == {"ok": 7, "decode_error": 4, "too_large": 1, "fetch_error": 4}
    # All but the missing one: whether it is there is a fact.
    assert report.unsettled == 3
    assert list(plan.run_directory.verify(plan.stored)) == []


def test_long_message_is_cut(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(ref: ImageRef, **_: Any) -> DecodedImage:
        raise TransientStorageError("x" * 2000)

    monkeypatch.setattr(shard_runner, "load_image", load)

    make_runner(plan).run(shards_of(plan)[0], is_last_attempt=True)

    assert {len(row.error_message or "") for row in rows_of(plan).values()} == {500}


# Faults that may pass


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


class XlaRuntimeError(RuntimeError):
    """Named as JAX's, which says what is wrong in its text only."""


MEMORY_FAULTS = [
    pytest.param(MemoryError("Unable to allocate 3 GiB"), id="host"),
    pytest.param(ResourceExhaustedError("OOM on /device:GPU:3"), id="tensorflow"),
    pytest.param(XlaRuntimeError("RESOURCE_EXHAUSTED: 0x7f00"), id="jax"),
]


def failing_generator(error: Exception, *, at: int) -> MaskGenerator:
    """Fail at the n-th image of every attempt, counted from 0."""
    calls = iter(range(10_000))

    def generate(pixels: Pixels) -> Any:
        if next(calls) % 6 == at:
            raise error
        return threshold_masks(pixels)

    return generate


@pytest.mark.parametrize("error", MEMORY_FAULTS)
def test_memory_fault_fails_the_attempt(plan: Plan, error: Exception) -> None:
    with pytest.raises(ShardError, match=r"Image '002.png': The image needs more memory"):
        make_runner(plan, generate=failing_generator(error, at=2)).run(shards_of(plan)[0])

    assert plan.run_directory.committed(plan.stored) == frozenset()


@pytest.mark.parametrize("error", MEMORY_FAULTS)
def test_memory_fault_of_the_last_attempt_becomes_a_row(plan: Plan, error: Exception) -> None:
    runner = make_runner(plan, generate=failing_generator(error, at=2))

    report = runner.run(shards_of(plan)[0], is_last_attempt=True)

    row = rows_of(plan)["002.png"]
    assert (row.status, row.error_type) == ("out_of_memory", "MemoryError")
    # Nothing of the backend's own text: it differs between machines.
    assert row.error_message == "The image needs more memory than the worker has"
    assert (row.width, row.height) == (8, 7)
    assert report.images == {"ok": 5, "out_of_memory": 1}
    assert report.unsettled == 1


def failing_loader(error: Exception, *, name: str) -> Callable[..., DecodedImage]:
    load_image = shard_runner.load_image

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if ref.image_id == name:
            raise error
        return load_image(ref, **options)

    return load


LOAD_FAULTS = [
    pytest.param(
        TransientStorageError("Read the object: reset"),
        "fetch_error",
        "TransientStorageError",
        "Read the object: reset",
        id="transient",
    ),
    pytest.param(
        MemoryError(),
        "out_of_memory",
        "MemoryError",
        "The image needs more memory than the worker has",
        id="memory",
    ),
]


@pytest.mark.parametrize(("error", "status", "error_type", "message"), LOAD_FAULTS)
def test_passing_fault_of_loading(
    plan: Plan,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: str,
    error_type: str,
    message: str,
) -> None:
    monkeypatch.setattr(shard_runner, "load_image", failing_loader(error, name="004.png"))
    runner = make_runner(plan)

    with pytest.raises(ShardError, match=r"Image '004\.png'"):
        runner.run(shards_of(plan)[0])
    assert stored_masks(plan.run_directory.uri) == {}

    report = runner.run(shards_of(plan)[0], is_last_attempt=True)

    row = rows_of(plan)["004.png"]
    assert (row.status, row.error_type, row.error_message) == (status, error_type, message)
    assert (row.width, row.height) == (None, None)
    assert report.unsettled == 1


def test_another_fault_of_the_generator_fails_the_attempt(plan: Plan) -> None:
    runner = make_runner(plan, generate=failing_generator(ValueError("a bug"), at=5))

    with pytest.raises(ValueError, match="a bug"):
        runner.run(shards_of(plan)[0])

    assert stored_masks(plan.run_directory.uri) == {}


def test_another_fault_of_the_last_attempt_costs_only_its_image(
    plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    runner = make_runner(plan, generate=failing_generator(ValueError("at 0x7f"), at=5))

    report = runner.run(shards_of(plan)[0], is_last_attempt=True)

    row = rows_of(plan)["005.png"]
    assert (row.status, row.error_type) == ("crash", "ValueError")
    assert row.error_message == "The model must come through every image. Received: an exception"
    assert row.width is not None
    assert report.images == {"ok": 5, "crash": 1}
    assert report.unsettled == 1
    assert "at 0x7f" in caplog.text


def test_model_that_fails_on_every_image_commits_nothing(plan: Plan) -> None:
    def generate(pixels: Pixels) -> Any:
        raise ValueError("no model")

    with pytest.raises(ShardError, match="none of it"):
        make_runner(plan, generate=generate).run(shards_of(plan)[0], is_last_attempt=True)

    assert stored_masks(plan.run_directory.uri) == {}


def test_image_neither_loaded_nor_refused_is_an_error(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_runner, "load_image", lambda ref, **_: None)

    with pytest.raises(ShardError, match="neither loaded nor refused"):
        make_runner(plan).run(shards_of(plan)[0])


def test_failed_attempt_leaves_no_thread(plan: Plan) -> None:
    runner = make_runner(plan, generate=failing_generator(MemoryError(), at=0), threads=4)

    with pytest.raises(ShardError):
        runner.run(shards_of(plan)[0])

    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


class FullDisk(LocalFiles):
    """Refuses to write below one folder."""

    full = "masks/"

    def put(self, key: str, data: bytes) -> None:
        if key.startswith(self.full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().put(key, data)


class FullForStats(FullDisk):
    full = "_amg/stats/"


def test_full_disk_is_passed_on_and_leaves_nothing(plan: Plan, tmp_path: Path) -> None:
    directory = RunDirectory(ObjectStore(FullDisk(str(tmp_path / "out")), retry=EAGER))
    runner = make_runner(plan, directory=directory)

    with pytest.raises(StorageError, match="the disk is full"):
        runner.run(shards_of(plan)[0])

    assert not (tmp_path / "out" / "masks").exists()
    assert list(plan.run_directory.read_stats([0])) == []


def test_statistics_that_cannot_be_written_are_no_failure(plan: Plan, tmp_path: Path) -> None:
    directory = RunDirectory(ObjectStore(FullForStats(str(tmp_path / "out")), retry=EAGER))

    report = make_runner(plan, directory=directory).run(shards_of(plan)[0])

    assert report.images == {"ok": 6}
    assert plan.run_directory.committed(plan.stored) == {0}
    assert list(plan.run_directory.read_stats([0])) == []


# Look-ahead


class CountingLoader:
    """Stands in for `load_image`: decides when each image is there, and counts live ones."""

    def __init__(self, *, wait_for: dict[str, str] | None = None) -> None:
        self._wait_for = wait_for or {}
        self._lock = threading.Lock()
        self._started: dict[str, threading.Event] = {}
        self.finished: list[str] = []
        self.alive = 0
        self.most_alive = 0

    def __call__(self, ref: ImageRef, **_: Any) -> DecodedImage:
        awaited = self._wait_for.get(ref.image_id)
        if awaited is not None:
            assert self._event(awaited).wait(timeout=30)
        pixels = np.full((2, 2, 3), int(ref.image_id[:3]), np.uint8)
        with self._lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
            self.finished.append(ref.image_id)
        weakref.finalize(pixels, self._forget)
        self._event(ref.image_id).set()
        return DecodedImage(ref, pixels)

    def _event(self, image_id: str) -> threading.Event:
        with self._lock:
            return self._started.setdefault(image_id, threading.Event())

    def _forget(self) -> None:
        self.alive -= 1


def test_rows_keep_their_order_whatever_is_decoded_first(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of each pair, the second is there first.
    loader = CountingLoader(wait_for={"000.png": "001.png", "002.png": "003.png"})
    monkeypatch.setattr(shard_runner, "load_image", loader)
    seen: list[int] = []

    def generate(pixels: Pixels) -> Any:
        seen.append(int(pixels[0, 0, 0]))
        return Found()

    make_runner(plan, generate=generate).run(shards_of(plan)[0])

    assert loader.finished[0] == "001.png"
    assert seen == [0, 1, 2, 3, 4, 5]
    assert list(rows_of(plan)) == [f"{number:03d}.png" for number in range(6)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_more_images_are_alive_than_threads_and_one(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    # The image that is waited for comes last of all that may be decoded meanwhile; the image
    # before it must be gone by then.
    slow = f"{1:03d}.png"
    loader = CountingLoader(wait_for={slow: f"{1 + threads:03d}.png"} if threads > 1 else {})
    monkeypatch.setattr(shard_runner, "load_image", loader)

    make_runner(plan, generate=lambda pixels: Found(), threads=threads).run(shards_of(plan)[0])

    assert len(loader.finished) == 6
    assert loader.most_alive <= threads + 1
    assert loader.alive == 0


def test_decoding_runs_ahead_of_the_model(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = CountingLoader()
    monkeypatch.setattr(shard_runner, "load_image", loader)

    def generate(pixels: Pixels) -> Any:
        number = int(pixels[0, 0, 0])
        # While this image is in use, the next two are decoded; without look-ahead this times out.
        for ahead in range(number + 1, min(number + 3, 6)):
            assert loader._event(f"{ahead:03d}.png").wait(timeout=30)
        return Found()

    make_runner(plan, generate=generate, threads=2).run(shards_of(plan)[0])

    assert len(loader.finished) == 6


# What needs no model runs beside it


class Unfinished:
    """Masks of one image with something left to do: whatever the test says."""

    def __init__(self, number: int, finish: Callable[[int], None]) -> None:
        self._number, self._finish = number, finish

    def to_records(self) -> tuple[MaskRecord, ...]:
        self._finish(self._number)
        return ()


def finishing(
    finish: Callable[[int], None], *, find: Callable[[int], None] = lambda number: None
) -> MaskGenerator:
    """Number the images as they come to the model, and call for each part of each."""
    numbers = iter(range(10_000))

    def generate(pixels: Pixels) -> Unfinished:
        number = next(numbers)
        find(number)
        return Unfinished(number, finish)

    return generate


def test_masks_are_finished_while_the_model_works_on_the_next_image(plan: Plan) -> None:
    found = [threading.Event() for _ in range(6)]

    def find(number: int) -> None:
        found[number].set()

    def finish(number: int) -> None:
        # In the model's turn this would wait for ever.
        assert found[min(number + 1, 5)].wait(timeout=30)

    report = make_runner(plan, generate=finishing(finish, find=find)).run(shards_of(plan)[0])

    assert report.images == {"ok": 6}


def test_few_images_wait_for_their_masks_to_be_finished(plan: Plan) -> None:
    found: list[int] = []
    ahead: list[int] = []
    go_on = threading.Event()

    def find(number: int) -> None:
        found.append(number)
        if number == 3:
            go_on.set()

    def finish(number: int) -> None:
        if number == 0:
            # The model comes as far as it may: the fourth image begins only after this one's end.
            assert not go_on.wait(timeout=0.2)
            ahead.extend(found)

    make_runner(plan, generate=finishing(finish, find=find)).run(shards_of(plan)[0])

    assert max(ahead) <= 2
    assert found == [0, 1, 2, 3, 4, 5]


def test_another_shard_has_the_model_while_the_last_masks_are_finished(
    photos: Path, tmp_path: Path
) -> None:
    plan = plan_photos(photos, tmp_path / "out", shard_size=3)
    second_begun = threading.Event()

    def find(number: int) -> None:
        if number == 3:
            second_begun.set()

    def finish(number: int) -> None:
        if number == 2:
            assert second_begun.wait(timeout=30)

    runner = make_runner(plan, generate=finishing(finish, find=find))
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(runner.run, shards_of(plan)))) == 2


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError()])
def test_fault_of_finishing_fails_the_attempt_and_later_images_are_not_told(
    plan: Plan, error: Exception
) -> None:
    def finish(number: int) -> None:
        if number == 2:
            raise error

    told: list[str] = []
    runner = make_runner(plan, generate=finishing(finish))
    with pytest.raises((ValueError, ShardError)):
        runner.run(shards_of(plan)[0], on_image=lambda result: told.append(result.ref.image_id))

    assert told == ["000.png", "001.png"]
    assert stored_masks(plan.run_directory.uri) == {}
    assert not [t for t in threading.enumerate() if t.name.startswith("finish")]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("a bug"), "crash"), (MemoryError(), "out_of_memory")]
)
def test_fault_of_finishing_in_the_last_attempt_costs_only_its_image(
    plan: Plan, error: Exception, status: str
) -> None:
    def finish(number: int) -> None:
        if number == 2:
            raise error

    runner = make_runner(plan, generate=finishing(finish))
    runner.run(shards_of(plan)[0], is_last_attempt=True)

    statuses = [row.status for row in rows_of(plan).values()]
    assert statuses == ["ok", "ok", status, "ok", "ok", "ok"]
    assert (rows_of(plan)["002.png"].width, rows_of(plan)["002.png"].height) == (8, 7)


def test_fault_of_a_callback_is_passed_on(plan: Plan) -> None:
    def refuse(result: ImageResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_runner(plan).run(shards_of(plan)[0], on_image=refuse)

    assert stored_masks(plan.run_directory.uri) == {}


# The real generator


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param(
            ["model.intra_op_threads=3"],
            {
                "backend": ("tensorflow", 3, True),
                "model": ("tiny", "default", "float32"),
                "segmenter": (64, 1),
            },
            id="strict-packaged",
        ),
        pytest.param(
            [
                "model.precision=fast",
                "model.backend=jax",
                "model.variant=vit_b",
                "model.weights=/w.pth",
                "model.encoder_batch_size=4",
                "amg.points_per_batch=16",
                "amg.stability_score_thresh=0.5",
            ],
            {
                "backend": ("jax", 1, False),
                "model": ("vit_b", "/w.pth", "mixed_bfloat16"),
                "segmenter": (16, 4),
            },
            id="fast-checkpoint",
        ),
    ],
)
def test_make_mask_generator_sets_up_backend_model_and_algorithm(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], expected: dict[str, Any]
) -> None:
    from amg_pipeline.sam import backend
    from amg_pipeline.sam.model import SAM

    made: dict[str, Any] = {}
    model = DiscModel([Shape("disc", 30, 24, 12, 12)])

    def prepare(name: str, *, intra_op_threads: int, exact_float32: bool) -> None:
        made["backend"] = (name, intra_op_threads, exact_float32)

    def from_variant(name: str, *, weights: object, dtype: object) -> DiscModel:
        made["model"] = (name, weights, dtype)
        return model

    monkeypatch.setattr(backend, "prepare_backend", prepare)
    monkeypatch.setattr(SAM, "from_variant", from_variant)

    generate = make_mask_generator(load_config(overrides=["amg.points_per_side=8", *overrides]))

    records = generate(coordinate_image(48, 64)).to_records()
    made["segmenter"] = model.requested[0]
    assert made == expected
    assert any(abs(record.rle.area - np.pi * 12**2) < 20 for record in records)


# Rows that are known, single images, and two shards at once


def test_known_rows_are_taken_as_they_are_and_their_images_not_touched(plan: Plan) -> None:
    shard = shards_of(plan)[0]
    loaded: list[str] = []

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        loaded.append(ref.image_id)
        return load_image(ref, **options)

    crash = ImageResult(shard.images[1], "crash", error_type="X", error_message="died")
    runner = make_runner(plan, load=load)
    tried = runner.run_image(shard.images[4])
    loaded.clear()
    report = runner.run(shard, known={1: crash, 4: tried})

    assert sorted(loaded) == ["000.png", "002.png", "003.png", "005.png"]
    assert report.images == {"ok": 5, "crash": 1}
    assert report.unsettled == 1
    rows = rows_of(plan)
    assert list(rows) == [ref.image_id for ref in shard.images]
    assert (rows["001.png"].status, rows["001.png"].error_message) == ("crash", "died")
    with_known = stored_masks(plan.run_directory.uri)
    make_runner(plan).run(shard, known={1: crash})
    assert stored_masks(plan.run_directory.uri) == with_known


def test_one_image_gives_its_row_and_commits_nothing(plan: Plan, photos: Path) -> None:
    runner, shard = make_runner(plan), shards_of(plan)[0]
    (photos / "001.png").write_bytes(b"no image")

    rows = [runner.run_image(ref) for ref in shard.images[:2]]

    assert [row.status for row in rows] == ["ok", "decode_error"]
    assert stored_masks(plan.run_directory.uri) == {}


def test_a_second_shard_loads_while_the_first_has_the_model(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out", shard_size=3)
    first, second = shards_of(plan)
    loads_of_second = threading.Event()
    in_model: list[int] = []

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if ref in second.images:
            loads_of_second.set()
        return load_image(ref, **options)

    def generate(pixels: Pixels) -> Found:
        in_model.append(1)
        assert sum(in_model) == 1, "two shards were in the model at once"
        # Would wait for ever if the second shard began to load only after the first.
        assert loads_of_second.wait(timeout=30)
        in_model.append(-1)
        return threshold_masks(pixels)

    runner = make_runner(plan, generate=generate, load=load)
    with ThreadPoolExecutor(2) as pool:
        reports = [pool.submit(runner.run, shard) for shard in (first, second)]
        assert sorted(report.result().shard_id for report in reports) == [0, 1]
