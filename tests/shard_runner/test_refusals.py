"""A store that refuses an image: a row, unless it refuses all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.errors import ImageNotFoundError, StorageAccessError
from amg_pipeline.planning import Plan
from amg_pipeline.records import DecodedImage, ImageRef
from amg_pipeline.shard_runner import ImageLoader
from amg_pipeline.shard_runner.refusals import Refusals
from amg_pipeline.storage.images import load_image
from tests.photo_runs import plan_photos, stored_masks
from tests.shard_runner.photo_shards import make_runner, rows_of, shards_of


def refusing(*names: str) -> ImageLoader:
    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if ref.image_id in names:
            raise StorageAccessError("Read the object: HTTP 403")
        return load_image(ref, **options)

    return load


@pytest.mark.parametrize("name", ["000.png", "005.png"])
def test_one_object_that_is_forbidden_is_a_row(plan: Plan, name: str) -> None:
    report = make_runner(plan, load=refusing(name)).run(shards_of(plan)[0])

    row = rows_of(plan)[name]
    assert (row.status, row.error_type) == ("fetch_error", "StorageAccessError")
    assert row.error_message == "Read the object: HTTP 403"
    assert report.images == {"ok": 5, "fetch_error": 1}
    assert report.unsettled == 1


def test_bucket_that_gives_nothing_ends_the_run_and_is_named(plan: Plan) -> None:
    every = [ref.image_id for ref in shards_of(plan)[0].images]
    with pytest.raises(StorageAccessError, match=r"^INPUT: .*Image '00\d.png': .*HTTP 403"):
        make_runner(plan, load=refusing(*every)).run(shards_of(plan)[0], is_last_attempt=True)

    assert stored_masks(plan.run_directory.uri) == {}


def test_what_earlier_shards_were_given_counts(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "single", shard_size=1)
    runner = make_runner(plan, load=refusing("001.png"))
    first, second = shards_of(plan)[:2]
    runner.run(first)

    assert runner.run(second).images == {"fetch_error": 1}
    assert runner.run_image(second.images[0]).status == "fetch_error"


def test_image_that_is_tried_alone(plan: Plan) -> None:
    ref = shards_of(plan)[0].images[0]
    with pytest.raises(StorageAccessError, match="INPUT"):
        make_runner(plan, load=refusing(ref.image_id)).run_image(ref)


def test_image_that_is_missing_is_an_answer(plan: Plan) -> None:
    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        raise ImageNotFoundError if ref.image_id == "003.png" else StorageAccessError("no")

    report = make_runner(plan, load=load).run(shards_of(plan)[0])
    assert report.images == {"fetch_error": 6}
    assert report.unsettled == 5


def test_each_bucket_answers_for_itself() -> None:
    refusals = Refusals()
    refusals.add_answer(ImageRef("a", "s3://open/a.jpg"))
    refusals.add(ImageRef("b", "s3://open/b.jpg"), StorageAccessError("no"))
    refusals.check()
    refusals.add(ImageRef("c", "s3://closed/c.jpg"), StorageAccessError("no"))
    with pytest.raises(StorageAccessError, match=r"s3://closed must .* Image 'c': no"):
        refusals.check()
