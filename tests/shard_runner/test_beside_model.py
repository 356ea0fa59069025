"""Images load before the model comes to them, and their masks are finished behind it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amg_pipeline.errors import ShardError
from amg_pipeline.planning import Plan
from amg_pipeline.records import DecodedImage, ImageRef, ImageResult, MaskRecord
from amg_pipeline.shard_runner import MaskGenerator
from tests.photo_runs import Found, plan_photos, stored_masks
from tests.shard_runner.photo_shards import Pixels, make_runner, rows_of, shards_of


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


def test_rows_keep_their_order_whatever_is_decoded_first(plan: Plan) -> None:
    # Of each pair, the second is there first.
    loader = CountingLoader(wait_for={"000.png": "001.png", "002.png": "003.png"})
    seen: list[int] = []

    def generate(pixels: Pixels) -> Any:
        seen.append(int(pixels[0, 0, 0]))
        return Found()

    make_runner(plan, generate=generate, load=loader).run(shards_of(plan)[0])

    assert loader.finished[0] == "001.png"
    assert seen == [0, 1, 2, 3, 4, 5]
    assert list(rows_of(plan)) == [f"{number:03d}.png" for number in range(6)]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_more_images_are_alive_than_threads_and_one(plan: Plan, threads: int) -> None:
    # The image that is waited for comes last of all that may be decoded meanwhile; the image
    # before it must be gone by then.
    slow = f"{1:03d}.png"
    loader = CountingLoader(wait_for={slow: f"{1 + threads:03d}.png"} if threads > 1 else {})

    make_runner(plan, generate=lambda pixels: Found(), threads=threads, load=loader).run(
        shards_of(plan)[0]
    )

    assert len(loader.finished) == 6
    assert loader.most_alive <= threads + 1
    assert loader.alive == 0


def test_decoding_runs_ahead_of_the_model(plan: Plan) -> None:
    loader = CountingLoader()

    def generate(pixels: Pixels) -> Any:
        number = int(pixels[0, 0, 0])
        # While this image is in use, the next two are decoded; without look-ahead this times out.
        for ahead in range(number + 1, min(number + 3, 6)):
            assert loader._event(f"{ahead:03d}.png").wait(timeout=30)
        return Found()

    make_runner(plan, generate=generate, threads=2, load=loader).run(shards_of(plan)[0])

    assert len(loader.finished) == 6


def test_failed_attempt_leaves_no_thread(plan: Plan) -> None:
    def refuse(number: int) -> None:
        raise MemoryError

    runner = make_runner(plan, generate=finishing(lambda number: None, find=refuse), threads=4)

    with pytest.raises(ShardError):
        runner.run(shards_of(plan)[0])

    assert not [t for t in threading.enumerate() if t.name.startswith(("decode", "finish"))]


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
