from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights import load_weights
from amg_pipeline.sam.weights.variables import official_tensors
from tests.sam.weights.conftest import Arrays, WriteSafetensors


def zeroed(model: Any) -> Any:
    for variable in model.variables:
        variable.assign(np.zeros(variable.shape, np.float32))
    return model


def values(model: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {name: tensor.read() for name, tensor in official_tensors(model).items()}


def test_official_tensors_have_official_layouts(small_model: Any, small_arrays: Arrays) -> None:
    tensors = official_tensors(small_model)
    assert list(tensors) == list(small_arrays)
    for name, array in small_arrays.items():
        assert tensors[name].shape == array.shape
        assert tensors[name].read().shape == array.shape
        np.testing.assert_array_equal(tensors[name].read(), array)


def test_load_weights_fills_every_variable(
    small_model: Any, small_arrays: Arrays, write_small: WriteSafetensors
) -> None:
    path = write_small(small_arrays)
    load_weights(zeroed(small_model), path)
    for name, array in values(small_model).items():
        np.testing.assert_array_equal(array, small_arrays[name])


def test_load_weights_widens_float16(
    small_model: Any, small_arrays: Arrays, write_small: WriteSafetensors
) -> None:
    path = write_small(small_arrays, dtype="float16")
    load_weights(zeroed(small_model), path)
    for name, array in values(small_model).items():
        np.testing.assert_array_equal(array, small_arrays[name].astype(np.float16))


@pytest.mark.parametrize("dropped", ["mask_decoder.iou_token.weight", "image_encoder.pos_embed"])
def test_load_weights_that_do_not_fit_leaves_the_model_unchanged(
    dropped: str, small_model: Any, small_arrays: Arrays, write_small: WriteSafetensors
) -> None:
    path = write_small({n: a for n, a in small_arrays.items() if n != dropped})
    zeroed(small_model)
    with pytest.raises(WeightsError, match=f"missing: {dropped}"):
        load_weights(small_model, path)
    assert not any(array.any() for array in values(small_model).values())


def test_load_weights_not_finite_is_refused(
    small_model: Any, small_arrays: Arrays, write_small: WriteSafetensors, tmp_path: Path
) -> None:
    path = write_small(small_arrays)
    data = bytearray(path.read_bytes())
    data[-4:] = np.array([np.nan], "<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="finite float32"):
        load_weights(small_model, path)


def test_model_with_other_variables_is_refused(small_model: Any) -> None:
    class Wrapper:
        """A model with one variable more than its parts."""

        def __init__(self) -> None:
            import keras

            self.image_encoder = small_model.image_encoder
            self.prompt_encoder = small_model.prompt_encoder
            self.mask_decoder = small_model.mask_decoder
            self.variables = [*small_model.variables, keras.Variable([0.0], name="stranger")]

    with pytest.raises(WeightsError, match=r"with others: \['stranger'\]"):
        official_tensors(Wrapper())
