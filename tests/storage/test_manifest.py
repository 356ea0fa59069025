from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage import listing, manifest
from amg_pipeline.storage.manifest import PLAN_SCHEMA, assign_shards, list_images
from tests.storage.inputs import fill, ids

# Filters


NAMES = [f"{folder}/{number:02d}.jpg" for folder in "ab" for number in range(20)]


def test_include_and_exclude(tmp_path: Path) -> None:
    fill(tmp_path, *NAMES)
    assert ids(tmp_path, include=("a/0[12]*", "b/19.jpg")) == ["a/01.jpg", "a/02.jpg", "b/19.jpg"]
    assert ids(tmp_path, exclude=("a/*", "*1?.jpg")) == [f"b/0{number}.jpg" for number in range(10)]
    assert ids(tmp_path, include=("a/0?.jpg",), exclude=("*[1-9].jpg",)) == ["a/00.jpg"]
    with pytest.raises(ConfigError, match="leave none of 40"):
        ids(tmp_path, include=("A/*",))


def test_limit_takes_the_first_and_sample_draws_before_it(tmp_path: Path) -> None:
    fill(tmp_path, *NAMES)
    assert ids(tmp_path, limit=3) == NAMES[:3]
    assert ids(tmp_path, limit=99) == NAMES
    drawn = ids(tmp_path, sample=10)
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == 10
    assert ids(tmp_path, sample=10, limit=3) == drawn[:3]
    assert ids(tmp_path, sample=10, sample_seed=1) != drawn
    assert ids(tmp_path, sample=99) == NAMES


def test_sample_stays_when_others_come(tmp_path: Path) -> None:
    """The draw of each image is its own, so a larger draw contains a smaller one."""
    fill(tmp_path, *NAMES)
    drawn = set(ids(tmp_path, sample=10))
    assert drawn < set(ids(tmp_path, sample=15))
    fill(tmp_path, "c/new.jpg")
    assert len(drawn & set(ids(tmp_path, sample=10))) >= 9


# Shards


ID = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@given(
    names=st.lists(ID, unique=True, min_size=1, max_size=25), size=st.integers(1, 9), data=st.data()
)
def test_shards_do_not_depend_on_the_listing(
    names: list[str], size: int, data: st.DataObject
) -> None:
    def plan(order: list[str]) -> pa.Table:
        uris = [f"/in/{name}" for name in order]
        nothing = [pa.nulls(len(order), pa.int64()), pa.nulls(len(order), pa.large_string())]
        columns = [pa.array(values, pa.large_string()) for values in (order, uris)]
        table = pa.Table.from_arrays([*columns, *nothing], schema=listing.IMAGES_SCHEMA)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manifest, "_find", lambda uri, settings: (table, False))
            images = list_images(ImageSettings(input="any", sample=20, sample_seed=3))
        return assign_shards(images, shard_size=size).cast(PLAN_SCHEMA)

    first, second = plan(names), plan(data.draw(st.permutations(names)))
    assert first.equals(second)
    kept = min(len(names), 20)
    assert first["shard_id"].to_pylist() == [row // size for row in range(kept)]
    assert first["row"].to_pylist() == [row % size for row in range(kept)]
    found = first["image_id"].to_pylist()
    assert found == sorted(found, key=str.encode)


def test_plan_columns(tmp_path: Path) -> None:
    fill(tmp_path, *NAMES)
    names = list(NAMES)
    random.Random(0).shuffle(names)
    plan = assign_shards(list_images(ImageSettings(input=str(tmp_path))), shard_size=16)
    assert plan.column_names == PLAN_SCHEMA.names
    assert plan["shard_id"].to_pylist() == [0] * 16 + [1] * 16 + [2] * 8
    assert plan["row"].to_pylist()[14:18] == [14, 15, 0, 1]
