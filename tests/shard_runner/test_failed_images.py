"""Faults that may pass fail the attempt, and become rows in the last one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.errors import ShardError, TransientStorageError
from amg_pipeline.planning import Plan
from amg_pipeline.records import DecodedImage, ImageRef, ImageResult
from amg_pipeline.shard_runner import MaskGenerator
from amg_pipeline.storage.images import load_image
from tests.photo_runs import plan_photos, stored_masks, threshold_masks
from tests.shard_runner.photo_shards import Pixels, make_runner, rows_of, shards_of


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
    error: Exception,
    status: str,
    error_type: str,
    message: str,
) -> None:
    runner = make_runner(plan, load=failing_loader(error, name="004.png"))

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


def test_condemned_image_that_is_alone_in_its_shard_is_committed(
    photos: Path, tmp_path: Path
) -> None:
    plan = plan_photos(photos, tmp_path / "alone", shard_size=1)
    shard = shards_of(plan)[0]
    known = {0: ImageResult(shard.images[0], "crash", error_type="WorkerDied")}

    assert make_runner(plan).run(shard, known=known).images == {"crash": 1}


def test_condemned_image_does_not_vouch_for_a_broken_model(plan: Plan) -> None:
    def generate(pixels: Pixels) -> Any:
        raise ValueError("no model")

    shard = shards_of(plan)[0]
    known = {0: ImageResult(shard.images[0], "timeout", error_type="TimeoutError")}
    with pytest.raises(ShardError, match="none of it"):
        make_runner(plan, generate=generate).run(shard, known=known, is_last_attempt=True)
