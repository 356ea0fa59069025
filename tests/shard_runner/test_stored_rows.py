"""No failure that may pass takes the place of a fact that is committed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from amg_pipeline.errors import TransientStorageError
from amg_pipeline.planning import Plan
from amg_pipeline.records import DecodedImage, ImageRef
from amg_pipeline.shard_runner import ImageLoader
from amg_pipeline.storage.images import load_image
from tests.photo_runs import stored_masks
from tests.shard_runner.photo_shards import make_runner, rows_of, shards_of


def throttled(*names: str) -> ImageLoader:
    """Read photos of a store that refuses these, or all if none is named."""

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if not names or ref.image_id in names:
            raise TransientStorageError("slow down")
        return load_image(ref, **options)

    return load


def test_last_attempt_keeps_what_another_has_committed(plan: Plan) -> None:
    shard = shards_of(plan)[0]
    make_runner(plan).run(shard)
    before = stored_masks(plan.run_directory.uri)

    report = make_runner(plan, load=throttled()).run(shard, is_last_attempt=True)

    assert stored_masks(plan.run_directory.uri) == before
    assert report.images == {"ok": 6}
    assert report.unsettled == 0


def test_two_halves_make_a_whole(plan: Plan) -> None:
    shard = shards_of(plan)[0]
    for names in (("001.png", "002.png"), ("002.png", "003.png")):
        make_runner(plan, load=throttled(*names)).run(shard, is_last_attempt=True)

    failed = [name for name, row in rows_of(plan).items() if row.status != "ok"]
    assert failed == ["002.png"]


def test_redo_keeps_what_another_has_healed_meanwhile(plan: Plan) -> None:
    shard = shards_of(plan)[0]
    make_runner(plan, load=throttled("001.png", "002.png")).run(shard, is_last_attempt=True)

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        # The other driver does the other row while this one is loaded.
        make_runner(plan).run(replace(shard, redo=frozenset({2})))
        return load_image(ref, **options)

    make_runner(plan, load=load).run(replace(shard, redo=frozenset({1})))

    assert {row.status for row in rows_of(plan).values()} == {"ok"}


def test_fact_takes_the_place_of_a_failure(plan: Plan) -> None:
    shard = shards_of(plan)[0]
    make_runner(plan, load=throttled()).run(shard, is_last_attempt=True)
    make_runner(plan).run(shard)

    assert {row.status for row in rows_of(plan).values()} == {"ok"}
