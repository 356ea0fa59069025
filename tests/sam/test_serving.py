from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam import SAM
from amg_pipeline.sam.serving import export_saved_model
from tests.sam.small_sam import CHANNELS, GRID, LOW_RES, as_arrays, random_image

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

#: What a client sends in place of a mask prompt.
NO_MASK = {
    "mask_input": np.zeros((1, 1, LOW_RES, LOW_RES), np.float32),
    "has_mask_input": np.zeros(1, np.float32),
}


@pytest.fixture(scope="module")
def saved(sam: SAM, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("export") / "1"
    sam.export(folder, verbose=False)
    return tf.saved_model.load(str(folder))


def serve(
    saved: Any,
    image: NDArray[np.uint8],
    coords: Any,
    labels: Any,
    *,
    size: tuple[int, int] | None = None,
    multimask: bool = True,
    **mask: Any,
) -> dict[str, NDArray[Any]]:
    outputs: dict[str, NDArray[Any]] = as_arrays(
        saved.signatures["serving_default"](
            image=tf.constant(image),
            point_coords=tf.constant(coords, tf.float32),
            point_labels=tf.constant(labels, tf.int32),
            original_size=tf.constant(size or image.shape[1:3], tf.int32),
            multimask_output=tf.constant(multimask),
            **{key: tf.constant(value, tf.float32) for key, value in {**NO_MASK, **mask}.items()},
        )
    )
    return outputs


def assert_equal(actual: Any, expected: Any) -> None:
    actual, expected = as_arrays(actual), as_arrays(expected)
    assert actual.keys() == expected.keys() == {"masks", "iou_predictions", "low_res_logits"}
    assert actual["masks"].dtype == bool
    for key in ("iou_predictions", "low_res_logits"):
        np.testing.assert_allclose(actual[key], expected[key], rtol=0, atol=2e-4)
    # At the masks' edges logits cross zero, and any rounding shows.
    assert actual["masks"].shape == expected["masks"].shape
    assert (actual["masks"] != expected["masks"]).mean() <= 0.001


@pytest.mark.parametrize(
    ("image_hw", "size"),
    [
        pytest.param((48, 80), (48, 80), id="wide"),
        pytest.param((99, 31), (99, 31), id="tall"),
        pytest.param((64, 64), (20, 30), id="other-original-size"),
        pytest.param((1, 200), (3, 2), id="one-row"),
    ],
)
def test_serve_equals_the_call_for_images_of_any_size(
    sam: SAM, saved: Any, image_hw: tuple[int, int], size: tuple[int, int]
) -> None:
    image = random_image(*image_hw)
    coords, labels = [[[12.0, 0.0], [3.5, 40.0]]], [[1, 0]]
    expected = sam({"image": image, "points": (coords, labels), "original_size": size})
    assert_equal(serve(saved, image, coords, labels, size=size), expected)


def test_serve_takes_batches_of_images_with_masks(sam: SAM, saved: Any) -> None:
    images = random_image(40, 30, batch=2)
    coords, labels = [[[5.0, 9.0]], [[25.0, 30.0]]], [[1], [1]]
    masks = np.random.default_rng(0).normal(0, 4, (2, 1, LOW_RES, LOW_RES))
    expected = sam({"image": images, "points": (coords, labels), "masks": masks})
    outputs = serve(saved, images, coords, labels, mask_input=masks, has_mask_input=np.ones(2))
    assert_equal(outputs, expected)
    # Of each prompt's own mask input, none where there is none.
    mixed = serve(saved, images, coords, labels, mask_input=masks, has_mask_input=np.array([1, 0]))
    alone = sam({"image": images[1:], "points": (coords[1:], labels[1:])})
    assert_equal({key: value[:1] for key, value in mixed.items()}, _first(expected))
    assert_equal({key: value[1:] for key, value in mixed.items()}, alone)


def _first(outputs: Any) -> Any:
    return {key: value[:1] for key, value in outputs.items()}


def test_serve_takes_many_prompts_on_one_image_and_gives_single_masks(sam: SAM, saved: Any) -> None:
    image = random_image(40, 30)
    coords, labels = np.array([[[5.0, 9.0]], [[25.0, 30.0]], [[0.0, 0.0]]]), np.ones((3, 1))
    expected = sam({"image": image, "points": (coords, labels), "multimask_output": False})
    outputs = serve(saved, image, coords, labels, multimask=False)
    assert outputs["masks"].shape == (3, 1, 40, 30)
    assert_equal(outputs, expected)


def test_boxes_are_points_labelled_as_corners(sam: SAM, saved: Any) -> None:
    image = random_image(40, 30)
    points = ([[[5.0, 9.0]]], [[1]])
    expected = sam({"image": image, "points": points, "boxes": [[[2.0, 3.0, 20.0, 30.0]]]})
    coords = [[[5.0, 9.0], [2.0, 3.0], [20.0, 30.0]]]
    assert_equal(serve(saved, image, coords, [[1, 2, 3]]), expected)


def test_a_caller_may_pad_by_itself_as_for_the_references_export(sam: SAM, saved: Any) -> None:
    image = random_image(40, 30)
    expected = sam({"image": image, "points": ([[[5.0, 9.0]]], [[1]])})
    assert_equal(serve(saved, image, [[[5.0, 9.0], [0.0, 0.0]]], [[1, -1]]), expected)


def test_a_mask_alone_is_a_prompt(sam: SAM, saved: Any) -> None:
    image = random_image(40, 30)
    masks = np.random.default_rng(0).normal(0, 4, (1, 1, LOW_RES, LOW_RES))
    outputs = serve(
        saved,
        image,
        np.zeros((1, 0, 2)),
        np.zeros((1, 0)),
        mask_input=masks,
        has_mask_input=np.ones(1),
    )
    assert_equal(outputs, sam({"image": image, "masks": masks}))


def test_encode_once_and_decode_often_equals_serve(sam: SAM, saved: Any) -> None:
    image = random_image(48, 80)
    embedding = saved.encode(image)["image_embedding"]
    assert embedding.shape == (1, GRID, GRID, CHANNELS)
    expected = as_arrays(sam.image_encoder(sam.preprocess(image)))
    np.testing.assert_allclose(as_arrays(embedding), expected, atol=2e-5)
    for x in (10.0, 70.0):
        coords = np.array([[[x, 20.0]]], np.float32)
        outputs = saved.decode(
            embedding,
            coords,
            np.array([[1]], np.int32),
            NO_MASK["mask_input"],
            NO_MASK["has_mask_input"],
            np.array([48, 80], np.int32),
            np.array([96, 160], np.int32),
            True,
        )
        assert outputs["masks"].shape == (1, 3, 96, 160)
        call = {"image": image, "points": (coords, [[1]]), "original_size": (96, 160)}
        assert_equal(outputs, sam(call))


def test_signatures_name_their_inputs(saved: Any) -> None:
    prompts = {
        "point_coords": ((None, None, 2), tf.float32),
        "point_labels": ((None, None), tf.int32),
        "mask_input": ((None, 1, LOW_RES, LOW_RES), tf.float32),
        "has_mask_input": ((None,), tf.float32),
        "original_size": ((2,), tf.int32),
        "multimask_output": ((), tf.bool),
    }
    image = {"image": ((None, None, None, 3), tf.uint8)}
    decode = {
        "image_embedding": ((None, GRID, GRID, CHANNELS), tf.float32),
        "image_size": ((2,), tf.int32),
    }
    for name, expected in {
        "serve": {**image, **prompts},
        "serving_default": {**image, **prompts},
        "encode": image,
        "decode": {**decode, **prompts},
    }.items():
        _, inputs = saved.signatures[name].structured_input_signature
        assert {
            key: (tuple(spec.shape.as_list()), spec.dtype) for key, spec in inputs.items()
        } == expected


def test_another_backend_is_refused(
    sam: SAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ConfigError, match=r"Received: 'torch'; save the weights.*tensorflow"):
        export_saved_model(sam, tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_another_format_or_a_signature_of_ones_own_goes_to_keras(
    sam: SAM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received: list[Any] = []

    def export(self: Any, filepath: Any, **arguments: Any) -> None:
        received.append((filepath, arguments))

    monkeypatch.setattr(keras.Model, "export", export)
    sam.export(tmp_path, format="onnx", opset_version=18)
    signature = [keras.InputSpec(shape=(1,))]
    sam.export(tmp_path, input_signature=signature, verbose=False)
    assert received == [
        (
            tmp_path,
            {"format": "onnx", "verbose": None, "input_signature": None, "opset_version": 18},
        ),
        (
            tmp_path,
            {"format": "tf_saved_model", "verbose": False, "input_signature": signature},
        ),
    ]
