from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amg_pipeline.errors import ConfigError, WeightsError
from amg_pipeline.sam.weights import convert, inspect, save_weights
from amg_pipeline.sam.weights.architecture import SamArchitecture, expected_shapes
from amg_pipeline.sam.weights.checkpoint import open_weights
from amg_pipeline.sam.weights.safetensors_file import read_safetensors
from amg_pipeline.sam.weights.source import source_sha256
from tests.sam.weights.conftest import Arrays, WriteSafetensors

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

REFERENCE_FILES = ["official.pth", "huggingface.safetensors", "kerashub.weights.h5"]


def read_all(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with open_weights(path) as opened:
        return {name: t.read_float32() for name, t in opened.translation.tensors.items()}


@pytest.mark.parametrize("name", REFERENCE_FILES)
def test_inspect_describes_each_kind(
    name: str, reference_file: Callable[[str], Path], small: SamArchitecture
) -> None:
    path = reference_file(name)
    description = inspect(path)
    assert description.variant == "custom"
    assert description.architecture["embed_dim"] == 12
    assert description.architecture["global_attn_indexes"] == (1,)
    assert description.dtypes == ("float32",)
    assert description.missing == description.left_over == ()
    assert description.sha256 == source_sha256(path)
    assert description.size_bytes == path.stat().st_size
    assert description.source == str(path)
    if name != "huggingface.safetensors":  # that one has a deeper IoU head
        assert description.num_parameters == sum(map(math.prod, expected_shapes(small).values()))


def test_inspect_names_what_does_not_fit(
    small_arrays: Arrays, write_small: WriteSafetensors
) -> None:
    arrays = dict(small_arrays)
    del arrays["prompt_encoder.no_mask_embed.weight"]
    arrays["stranger"] = np.zeros(2, np.float32)
    arrays["mask_decoder.iou_token.weight"] = np.zeros((2, 16), np.float32)
    description = inspect(write_small(arrays))
    assert description.missing == ("prompt_encoder.no_mask_embed.weight",)
    assert description.left_over == ("stranger", "mask_decoder.iou_token.weight")
    assert description.num_tensors == len(arrays)


def test_inspect_of_a_part_of_a_model_tells_no_variant(
    small_arrays: Arrays, write_small: WriteSafetensors
) -> None:
    arrays = {n: a for n, a in small_arrays.items() if n.startswith("image_encoder")}
    description = inspect(write_small(arrays))
    assert description.variant is None
    assert description.architecture == {}
    assert description.missing == description.left_over == ()


@pytest.mark.parametrize("name", REFERENCE_FILES)
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_convert_to_official_names_keeps_every_value(
    name: str, ending: str, reference_file: Callable[[str], Path], tmp_path: Path
) -> None:
    source = reference_file(name)
    convert(source, tmp_path / f"out{ending}")
    before, after = read_all(source), read_all(tmp_path / f"out{ending}")
    assert before.keys() == after.keys()
    for tensor_name, values in before.items():
        np.testing.assert_array_equal(after[tensor_name], values)


def test_convert_float16_to_float32(small_model: Any, small_arrays: Arrays, tmp_path: Path) -> None:
    save_weights(small_model, tmp_path / "half.safetensors", dtype="float16")
    convert(tmp_path / "half.safetensors", tmp_path / "whole.safetensors")
    checkpoint = read_safetensors(tmp_path / "whole.safetensors")
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"float32"}
    assert json.loads(checkpoint.metadata["amg_pipeline"])["embed_dim"] == 12


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_convert_to_keras_and_back(
    ending: str, reference_file: Callable[[str], Path], tmp_path: Path
) -> None:
    source = reference_file("kerashub.weights.h5")
    convert(source, tmp_path / f"a{ending}")
    before, after = read_all(source), read_all(tmp_path / f"a{ending}")
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
    assert inspect(tmp_path / f"a{ending}").format == ending.removeprefix(".")


def test_convert_keeps_the_decoder_heads_that_shapes_do_not_tell(tmp_path: Path) -> None:
    from dataclasses import replace

    from amg_pipeline.sam.weights.conversion import build_model
    from tests.sam.small_sizes import SMALL

    save_weights(build_model(replace(SMALL, decoder_num_heads=4)), tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert inspect(tmp_path / "b.safetensors").architecture["decoder_num_heads"] == 4


def test_convert_of_an_incomplete_file_is_refused(
    small_arrays: Arrays, write_small: WriteSafetensors, tmp_path: Path
) -> None:
    arrays = dict(small_arrays)
    del arrays["prompt_encoder.no_mask_embed.weight"]
    with pytest.raises(WeightsError, match=r"missing: prompt_encoder\.no_mask_embed.weight"):
        convert(write_small(arrays), tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_convert_to_an_unknown_ending_reads_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must end in one of"):
        convert(tmp_path / "absent.pth", tmp_path / "out.onnx")


def test_variant_names_mean_packaged_or_fetched_weights(
    small_arrays: Arrays,
    write_small: WriteSafetensors,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_small(small_arrays)
    monkeypatch.setattr(
        "amg_pipeline.assets.packaged_weights", {"tiny": str(path)}.get, raising=False
    )
    assert inspect("tiny").source == str(path)
    monkeypatch.setattr(
        "amg_pipeline.sam.weights.official.default_cache_dir", lambda: tmp_path / "cache"
    )
    with pytest.raises(ConfigError, match="amg weights fetch vit_b"):
        convert("vit_b", tmp_path / "out.pth")
    (tmp_path / "cache").mkdir()
    path.rename(tmp_path / "cache" / "sam_vit_b_01ec64.pth")
    convert("vit_b", tmp_path / "out.pth")
    assert inspect(tmp_path / "out.pth").format == "pth"
