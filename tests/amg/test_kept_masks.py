from __future__ import annotations

import sys

import numpy as np
import pytest

from amg_pipeline.amg import kept_masks
from amg_pipeline.amg.kept_masks import KeptMasks
from amg_pipeline.amg.packed_masks import PackedMask, pack_mask


@pytest.fixture(params=[0, 2**20], ids=["deflated", "plain"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(kept_masks, "_LARGEST_PLAIN", request.param)
    return request.param


def some_masks() -> list[PackedMask]:
    rng = np.random.default_rng(0)
    return [
        pack_mask(rng.random((5 + i, 9)) < 0.5, left=2 * i, top=8 * (i % 2) + 3) for i in range(4)
    ]


def same(kept: KeptMasks, masks: list[PackedMask]) -> bool:
    return [(m.left, m.top, m.columns.tolist()) for m in kept] == [
        (m.left, m.top, m.columns.tolist()) for m in masks
    ]


@pytest.mark.usefixtures("limit")
def test_masks_come_back_as_they_were_in_every_selection() -> None:
    masks = some_masks()
    kept = KeptMasks(iter(masks))
    assert len(kept) == 4
    assert same(kept, masks)
    assert same(kept.take(np.array([3, 1])), [masks[3], masks[1]])
    assert same(kept[1:3], masks[1:3])
    assert same(KeptMasks.joined([kept[:1], KeptMasks(), kept[2:]]), [masks[0], *masks[2:]])
    with pytest.raises(IndexError):
        kept[4]


@pytest.mark.usefixtures("limit")
def test_a_shift_moves_every_mask() -> None:
    kept = KeptMasks(some_masks())
    assert same(kept.shifted(dx=0, dy=0), some_masks())
    moved = kept.shifted(dx=3, dy=5)
    assert [mask.left for mask in moved] == [mask.left + 3 for mask in some_masks()]
    assert [mask.area for mask in moved] == [mask.area for mask in some_masks()]


def test_a_large_mask_takes_a_small_part_of_its_bytes() -> None:
    inside = np.hypot(*np.mgrid[-1000:1000, -1000:1000]) < 900
    mask = pack_mask(inside)
    assert mask.columns.nbytes > 256 * 1024
    (deflated,) = KeptMasks([mask])._kept
    assert sys.getsizeof(deflated.data) < mask.columns.nbytes / 20
    assert same(KeptMasks([mask]), [mask])
