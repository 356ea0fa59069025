"""Rows with fewer masks, as if fewer had been found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from amg_pipeline.storage.kept_masks import MaskColumns, keep_masks
from amg_pipeline.storage.mask_table import decode_table, encode_rows, encode_table, read_table
from tests.storage.doubles import METADATA, failed_result, make_result

RESULTS = [
    make_result("a.jpg", masks=4, seed=1),
    failed_result(),
    *(make_result(f"{number:02}.jpg", masks=number % 4, seed=number) for number in range(40)),
]


@pytest.mark.parametrize("results", [RESULTS, RESULTS[:1], RESULTS[1:2], []])
@pytest.mark.parametrize("modulus", [1, 2, 10**9])
def test_bytes_are_those_of_the_results_without_the_masks(results: list, modulus: int) -> None:
    number = 0
    expected = []
    for result in results:
        kept = []
        for mask in result.masks:
            if number % modulus == 0:
                kept.append(mask)
            number += 1
        expected.append(replace(result, masks=tuple(kept)))

    def choose(masks: MaskColumns) -> np.ndarray:
        return np.arange(len(masks.area)) % modulus == 0

    table = keep_masks(read_table(encode_table(results, METADATA)), choose)

    assert encode_rows(table, METADATA) == encode_table(expected, METADATA)


def test_columns_are_those_of_the_masks() -> None:
    seen: list[MaskColumns] = []

    def choose(masks: MaskColumns) -> np.ndarray:
        seen.append(masks)
        return np.ones(len(masks.area), bool)

    data = encode_table(RESULTS, METADATA)
    keep_masks(read_table(data), choose)
    masks = [mask for row in decode_table(data) for mask in row.masks]

    assert seen[0].area.tolist() == [mask.rle.area for mask in masks]
    assert seen[0].image_area.tolist() == [54] * len(masks)
    assert seen[0].predicted_iou.tolist() == [mask.predicted_iou for mask in masks]
