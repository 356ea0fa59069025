from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights.architecture import (
    METADATA_KEY,
    SamArchitecture,
    expected_shapes,
    of_metadata,
    of_model,
    of_preset,
    of_shapes,
)


@pytest.mark.parametrize("variant", list(PRESETS))
def test_of_shapes_tells_every_variant(variant: str) -> None:
    architecture = of_preset(PRESETS[variant])
    told = of_shapes(expected_shapes(architecture))
    assert told == architecture
    assert told.variant == variant


@pytest.mark.parametrize(
    ("variant", "count"),
    [("vit_b", 93_735_728), ("vit_l", 312_343_088), ("vit_h", 641_090_864)],
)
def test_expected_shapes_add_up_to_the_published_counts(variant: str, count: int) -> None:
    # The fixed Fourier matrix of 256 values included.
    shapes = expected_shapes(of_preset(PRESETS[variant]))
    assert sum(map(math.prod, shapes.values())) == count


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"qkv_bias": False}, id="no-qkv-bias"),
        pytest.param({"global_attn_indexes": (0, 1, 2), "window_size": 0}, id="all-global"),
        pytest.param({"num_multimask_outputs": 5, "iou_head_depth": 2}, id="other-heads"),
        pytest.param({"decoder_depth": 3, "attention_downsample_rate": 1}, id="other-transformer"),
        pytest.param({"in_chans": 4, "mask_in_chans": 16}, id="other-inputs"),
    ],
)
def test_of_shapes_tells_custom_sizes(changes: dict[str, Any], small: SamArchitecture) -> None:
    architecture = replace(small, **changes)
    told = of_shapes(expected_shapes(architecture))
    assert told == architecture
    assert told.variant is None


def test_expected_shapes_match_a_built_model(session_model: Any, small: SamArchitecture) -> None:
    assert of_model(session_model) == small
    sizes = sum(math.prod(variable.shape) for variable in session_model.variables)
    assert sum(map(math.prod, expected_shapes(small).values())) == sizes


@pytest.mark.parametrize(
    "name",
    [
        "image_encoder.pos_embed",
        "image_encoder.blocks.0.attn.rel_pos_h",
        "mask_decoder.mask_tokens.weight",
    ],
)
def test_of_shapes_without_a_telling_tensor_is_refused(name: str, small: SamArchitecture) -> None:
    shapes = expected_shapes(small)
    del shapes[name]
    with pytest.raises(WeightsError, match="do not tell its sizes"):
        of_shapes(shapes)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param("image_encoder.pos_embed", (1, 4), id="rank"),
        pytest.param("image_encoder.blocks.0.attn.rel_pos_h", (5, 0), id="zero-width"),
        pytest.param("mask_decoder.mask_tokens.weight", (10**12, 0), id="absurd-count"),
    ],
)
def test_of_shapes_with_an_impossible_shape_is_refused(
    name: str, shape: tuple[int, ...], small: SamArchitecture
) -> None:
    with pytest.raises(WeightsError, match="do not tell its sizes"):
        of_shapes(expected_shapes(small) | {name: shape})


def test_to_json_is_flat_and_reads_back(small: SamArchitecture) -> None:
    text = of_preset(PRESETS["vit_b"]).to_json()
    assert json.loads(text)["variant"] == "vit_b"
    assert json.loads(text)["embed_dim"] == 768
    custom = replace(small, decoder_num_heads=4, use_rel_pos=False)
    assert of_metadata({METADATA_KEY: custom.to_json()}) == custom


@pytest.mark.parametrize(
    "metadata",
    [
        pytest.param({}, id="absent"),
        pytest.param({METADATA_KEY: "{"}, id="no-json"),
        pytest.param({METADATA_KEY: "[]"}, id="list"),
        pytest.param({METADATA_KEY: '{"global_attn_indexes": []}'}, id="incomplete"),
    ],
)
def test_of_metadata_without_our_entry_is_none(metadata: dict[str, str]) -> None:
    assert of_metadata(metadata) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"depth": 10**9},
        {"depth": -1},
        {"depth": "12"},
        {"patch_size": 0},
        {"num_heads": 0},
        {"global_attn_indexes": ["1"]},
    ],
    ids=str,
)
def test_of_metadata_with_absurd_sizes_is_none(
    changes: dict[str, Any], small: SamArchitecture
) -> None:
    flat = json.loads(small.to_json()) | changes
    assert of_metadata({METADATA_KEY: json.dumps(flat)}) is None
