"""Mask generation does no more work than is written down, and undoing what saved it is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amg_pipeline.amg import generator
from amg_pipeline.sam.transformer import TwoWayTransformer
from benchmarks.seeded_weights import build_seeded_sam
from benchmarks.work_guard import CASES, Counted, allowed_work, faults


@pytest.fixture(scope="module")
def sam() -> Any:
    return build_seeded_sam(CASES["low_rank"].model)


@pytest.fixture(scope="module")
def low_rank(sam: Any) -> Counted:
    return Counted(CASES["low_rank"], sam)


def _faults(counted: Counted) -> list[str]:
    return faults(counted.count(), allowed_work()["low_rank"])


def test_large_models_do_no_more_than_is_written_down(low_rank: Counted) -> None:
    assert _faults(low_rank) == []


def test_it_is_found_if_masks_are_made_of_prompts_that_failed(
    low_rank: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        generator, "passes_predicted_iou", lambda scores, _: np.ones(scores.shape, bool)
    )
    found = _faults(low_rank)
    assert any("make_low_res_logits" in fault for fault in found)
    assert any(fault.startswith("bytes_to_host") for fault in found)


@pytest.mark.work
def test_it_is_found_if_every_prompt_gets_an_image_of_its_own(
    sam: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TwoWayTransformer, "is_low_rank", lambda *_: False)
    found = _faults(Counted(CASES["low_rank"], sam))
    assert any(fault.startswith("flops") for fault in found)


@pytest.mark.work
def test_it_is_found_if_batches_are_padded_to_twice_their_size(sam: Any) -> None:
    found = _faults(Counted(CASES["low_rank"], sam, points_per_batch=24))
    assert any(fault.startswith("flops") for fault in found)
