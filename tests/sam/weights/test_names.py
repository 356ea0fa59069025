from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.names import (
    is_kernel,
    kernel_to_keras,
    kernel_to_torch,
    official_name,
    translate,
)
from amg_pipeline.sam.weights.tensors import SourceTensor

FOURIER = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


def source(name: str, array: Any = 0.0, dtype: str = "float32") -> SourceTensor:
    array = np.asarray(array, np.float32)
    return SourceTensor(name, array.shape, dtype, lambda: array)


@pytest.mark.parametrize(
    ("naming", "name", "expected"),
    [
        ("official", "image_encoder.neck.0.weight", "image_encoder.neck.0.weight"),
        ("huggingface", "shared_image_embedding.positional_embedding", FOURIER),
        ("huggingface", "prompt_encoder.shared_embedding.positional_embedding", FOURIER),
        (
            "huggingface",
            "vision_encoder.layers.31.layer_norm2.bias",
            "image_encoder.blocks.31.norm2.bias",
        ),
        (
            "huggingface",
            "vision_encoder.layers.10.attn.rel_pos_h",
            "image_encoder.blocks.10.attn.rel_pos_h",
        ),
        ("huggingface", "vision_encoder.layers.01.attn.rel_pos_h", None),
        ("huggingface", "vision_encoder.layers.0.layer_norm3.bias", None),
        ("huggingface", "position_ids", None),
        (
            "kerashub",
            "layers/windowed_transformer_encoder_11/attention/add_decomposed_relative_pe/vars/1",
            "image_encoder.blocks.11.attn.rel_pos_w",
        ),
        (
            "kerashub",
            "image_encoder/layers/windowed_transformer_encoder/layer_norm1/vars/1",
            "image_encoder.blocks.0.norm1.bias",
        ),
        (
            "kerashub",
            "layers/sam_prompt_encoder/background_point_embed/vars/0",
            "prompt_encoder.point_embeddings.0.weight",
        ),
        ("kerashub", "layers/windowed_transformer_encoder_0/layer_norm1/vars/1", None),
        ("kerashub", "layers/windowed_transformer_encoder/layer_norm1/vars/2", None),
        (
            "keras",
            "layers/prompt_encoder/vars/3",
            "prompt_encoder.point_embeddings.3.weight",
        ),
        ("keras", "layers/prompt_encoder/vars/6", None),
        ("keras", "image_encoder/layers/conv2d/vars/1", "image_encoder.patch_embed.proj.bias"),
        (
            "keras",
            "mask_decoder/output_hypernetworks_mlps/mlp_2/layers/dense_1/vars/0",
            "mask_decoder.output_hypernetworks_mlps.2.layers.1.weight",
        ),
    ],
)
def test_official_name(naming: str, name: str, expected: str | None) -> None:
    assert official_name(naming, name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("image_encoder.blocks.0.attn.qkv.weight", True),
        ("image_encoder.blocks.0.attn.qkv.bias", False),
        ("image_encoder.blocks.0.attn.rel_pos_h", False),
        ("image_encoder.pos_embed", False),
        ("mask_decoder.output_upscaling.0.weight", True),
        # Square tables would be transposed without anyone noticing.
        ("mask_decoder.mask_tokens.weight", False),
        ("prompt_encoder.point_embeddings.0.weight", False),
        (FOURIER, False),
    ],
)
def test_is_kernel(name: str, expected: bool) -> None:
    assert is_kernel(name) is expected


@given(
    rank=st.sampled_from([1, 2, 4]),
    data=st.data(),
)
def test_kernel_layouts_are_inverse(rank: int, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    array = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(-9, 9, width=32)))
    np.testing.assert_array_equal(kernel_to_keras(kernel_to_torch(array)), array)


def test_kernel_to_torch_moves_each_axis_where_it_belongs() -> None:
    assert kernel_to_torch(np.zeros((5, 7))).shape == (7, 5)
    # (height, width, in, out) of a convolution; for a transposed one in and out swap names.
    assert kernel_to_torch(np.zeros((2, 3, 5, 7))).shape == (7, 5, 2, 3)


PATCH = "vision_encoder.patch_embed.projection.weight"
SHARED = ("prompt_encoder.shared_embedding", "shared_image_embedding")


def test_translate_equal_copies_of_a_tied_tensor_count_as_one() -> None:
    tied = [source(f"{owner}.positional_embedding", [[1, 2]]) for owner in SHARED]
    translation = translate([source(PATCH), *tied])
    assert set(translation.tensors) == {"image_encoder.patch_embed.proj.weight", FOURIER}
    assert translation.unknown == ()


@pytest.mark.parametrize("other", [[[1, 3]], [[1, 2, 3]]], ids=["value", "shape"])
def test_translate_copies_that_differ_are_refused(other: Any) -> None:
    tied = [
        source(f"{owner}.positional_embedding", values)
        for owner, values in zip(SHARED, ([[1, 2]], other), strict=True)
    ]
    with pytest.raises(WeightsError, match=r"copies of.*gaussian_matrix.*differ"):
        translate([source(PATCH), *tied])


def test_translate_numbers_head_layers_by_their_count() -> None:
    head = "mask_decoder.iou_prediction_head"
    names = ["proj_in", "layers.0", "layers.1", "layers.2", "proj_out"]
    tensors = [
        source(f"{head}.{name}.{kind}", i)
        for i, name in enumerate(names)
        for kind in ("weight", "bias")
    ]
    translation = translate([source(PATCH), *tensors])
    for i in range(5):
        assert translation.tensors[f"{head}.layers.{i}.weight"].read() == i
        assert translation.tensors[f"{head}.layers.{i}.bias"].read() == i


def test_translate_reports_what_it_does_not_know() -> None:
    translation = translate([source(PATCH), source("text_encoder.weight")])
    assert [tensor.name for tensor in translation.unknown] == ["text_encoder.weight"]


@pytest.mark.parametrize("names", [["a", "b"], []], ids=["strangers", "nothing"])
def test_translate_unknown_naming_is_refused(names: list[str]) -> None:
    with pytest.raises(WeightsError, match="Expected the names of"):
        translate([source(name) for name in names])


def test_translate_kernel_of_odd_rank_is_refused() -> None:
    tensors = [
        source("image_encoder/blocks/block/norm1/vars/0", [1]),
        source("image_encoder/blocks/block/attn/qkv/vars/0", np.zeros((1, 2, 3))),
    ]
    with pytest.raises(WeightsError, match=r"vector, matrix or convolution.*\(1, 2, 3\)"):
        translate(tensors)
