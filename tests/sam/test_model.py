from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam import SAM, MaskDecoder, PromptEncoder
from amg_pipeline.sam.presets import PIXEL_MEAN, PIXEL_STD, PRESETS
from tests.sam.plain_resize import two_resizes
from tests.sam.small_sam import (
    CHANNELS,
    GRID,
    IMG_SIZE,
    LOW_RES,
    as_arrays,
    make_sam,
    random_image,
)

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEIGHT, WIDTH = 48, 80
INPUT_HW = (38, 64)  # 64 / 80 * 48 is 38.4
IMAGE = random_image(HEIGHT, WIDTH)
POINTS = (np.array([[[30.0, 20.0]]]), np.array([[1]]))
BOXES = np.array([[[10.0, 5.0, 60.0, 40.0]]])
MASKS = np.random.default_rng(0).normal(0, 4, (1, 1, LOW_RES, LOW_RES))

Outputs = dict[str, NDArray[Any]]


def run(sam: SAM, /, **inputs: Any) -> Outputs:
    outputs: Outputs = as_arrays(sam({"image": IMAGE, **inputs}))
    return outputs


def assert_equal(actual: Outputs, expected: Outputs, *, atol: float = 0.0) -> None:
    assert actual.keys() == expected.keys() == {"masks", "iou_predictions", "low_res_logits"}
    for key in ("iou_predictions", "low_res_logits"):
        np.testing.assert_allclose(actual[key], expected[key], rtol=0.0, atol=atol)
    # At the masks' edges logits cross zero, and any rounding shows.
    assert (actual["masks"] != expected["masks"]).mean() <= (0.001 if atol else 0.0)


@pytest.fixture(scope="module")
def of_point(sam: SAM) -> Outputs:
    return run(sam, points=POINTS)


class TestOutputs:
    def test_shapes_and_dtypes(self, of_point: Outputs) -> None:
        assert {key: (value.shape, str(value.dtype)) for key, value in of_point.items()} == {
            "masks": ((1, 3, HEIGHT, WIDTH), "bool"),
            "iou_predictions": ((1, 3), "float32"),
            "low_res_logits": ((1, 3, LOW_RES, LOW_RES), "float32"),
        }

    def test_the_fixture_is_a_fair_test(self, of_point: Outputs) -> None:
        assert 1 < of_point["low_res_logits"].std() < 10
        assert 0.1 < of_point["masks"].mean() < 0.9

    def test_masks_are_the_upscaled_logits_above_the_threshold(self, of_point: Outputs) -> None:
        logits = two_resizes(of_point["low_res_logits"], IMG_SIZE, INPUT_HW, (HEIGHT, WIDTH))
        clear = np.abs(logits) > 1e-3
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(of_point["masks"][clear], (logits > 0)[clear])

    def test_the_call_is_its_parts(self, sam: SAM, of_point: Outputs) -> None:
        """As an application would call them that keeps the embedding."""
        embedding = sam.image_encoder(sam.preprocess(IMAGE))
        coords = POINTS[0] * [64 / 80, 38 / 48]
        sparse, dense = sam.prompt_encoder(points=(coords, POINTS[1]))
        logits, scores = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        masks = sam.postprocess_masks(logits, INPUT_HW, (HEIGHT, WIDTH)) > 0.0
        parts = {"masks": masks, "iou_predictions": scores, "low_res_logits": logits}
        assert_equal(as_arrays(parts), of_point, atol=1e-4)

    def test_mask_threshold_moves_the_masks(self, sam: SAM, of_point: Outputs) -> None:
        parts = (sam.image_encoder, sam.prompt_encoder, sam.mask_decoder)
        eager = run(SAM(*parts, mask_threshold=2.0), points=POINTS)
        np.testing.assert_array_equal(eager["low_res_logits"], of_point["low_res_logits"])
        assert eager["masks"].sum() < of_point["masks"].sum()

    def test_training_changes_nothing(self, sam: SAM, of_point: Outputs) -> None:
        trained = as_arrays(sam({"image": IMAGE, "points": POINTS}, training=True))
        assert_equal(trained, of_point)


class TestPrompts:
    @pytest.mark.parametrize(
        "points",
        [
            pytest.param((POINTS[0].tolist(), POINTS[1].tolist()), id="lists"),
            pytest.param((POINTS[0].astype(int), POINTS[1].astype(float)), id="other-dtypes"),
            pytest.param(
                [ops.convert_to_tensor(part, dtype="float32") for part in POINTS], id="tensors"
            ),
        ],
    )
    def test_points_in_other_containers_give_the_same(
        self, sam: SAM, of_point: Outputs, points: Any
    ) -> None:
        assert_equal(run(sam, points=points), of_point)

    @pytest.mark.parametrize(
        ("prompts", "tokens"),
        [
            pytest.param({}, 0, id="nothing"),
            pytest.param(
                {"points": (np.array([[[30.0, 20], [9, 9], [70, 40]]]), [[1, 0, 1]])},
                4,
                id="points",
            ),
            pytest.param({"boxes": BOXES}, 2, id="box"),
            pytest.param({"boxes": np.tile(BOXES, (1, 3, 1)).tolist()}, 6, id="boxes"),
            pytest.param({"masks": MASKS}, 0, id="mask"),
            pytest.param({"points": POINTS, "boxes": BOXES}, 3, id="point-and-box"),
            pytest.param({"points": POINTS, "masks": MASKS}, 2, id="point-and-mask"),
            pytest.param({"points": POINTS, "boxes": BOXES, "masks": MASKS}, 3, id="all"),
        ],
    )
    def test_every_combination_reaches_the_decoder(
        self,
        sam: SAM,
        of_point: Outputs,
        monkeypatch: pytest.MonkeyPatch,
        prompts: dict[str, Any],
        tokens: int,
    ) -> None:
        received = []
        call = sam.mask_decoder.attend

        def attend(*arguments: Any) -> Any:
            received.append([tuple(argument.shape) for argument in arguments])
            return call(*arguments)

        monkeypatch.setattr(sam.mask_decoder, "attend", attend)
        outputs = run(sam, **prompts)
        assert received[0][2] == (1, tokens, CHANNELS)
        assert outputs["masks"].shape == (1, 3, HEIGHT, WIDTH)
        assert np.abs(outputs["low_res_logits"] - of_point["low_res_logits"]).max() > 0.01

    def test_the_single_mask(self, sam: SAM, of_point: Outputs) -> None:
        for choice in (False, np.False_, ops.convert_to_tensor(False)):
            outputs = run(sam, points=POINTS, multimask_output=choice)
            assert outputs["masks"].shape == (1, 1, HEIGHT, WIDTH)
            assert outputs["iou_predictions"].shape == (1, 1)
            assert outputs["low_res_logits"].shape == (1, 1, LOW_RES, LOW_RES)
        for i in range(3):
            assert np.abs(outputs["low_res_logits"] - of_point["low_res_logits"][:, i]).max() > 0.01

    def test_none_means_absent(self, sam: SAM, of_point: Outputs) -> None:
        outputs = run(
            sam, points=POINTS, boxes=None, masks=None, original_size=None, multimask_output=None
        )
        assert_equal(outputs, of_point)

    def test_a_batch_of_images_is_as_its_images_one_by_one(self, sam: SAM) -> None:
        images = random_image(40, 30, batch=2, seed=3)
        coords, labels = np.array([[[5.0, 9.0]], [[25.0, 30.0]]]), np.array([[1], [0]])
        masks = np.concatenate([MASKS, -MASKS])
        together = as_arrays(sam({"image": images, "points": (coords, labels), "masks": masks}))
        assert together["masks"].shape == (2, 3, 40, 30)
        for i in range(2):
            some = slice(i, i + 1)
            alone = as_arrays(
                sam(
                    {
                        "image": images[some],
                        "points": (coords[some], labels[some]),
                        "masks": masks[some],
                    }
                )
            )
            expected = {key: value[some] for key, value in together.items()}
            assert_equal(alone, expected, atol=1e-4)

    def test_many_prompts_share_one_image(self, sam: SAM, of_point: Outputs) -> None:
        coords = np.array([[[60.0, 40.0]], [[30.0, 20.0]], [[1.0, 2.0]]])
        outputs = run(sam, points=(coords, np.ones((3, 1))))
        assert outputs["masks"].shape == (3, 3, HEIGHT, WIDTH)
        second = {key: value[1:2] for key, value in outputs.items()}
        assert_equal(second, of_point, atol=1e-4)

    def test_a_batch_of_images_without_prompts(self, sam: SAM) -> None:
        outputs = as_arrays(sam({"image": random_image(20, 30, batch=2)}))
        assert outputs["masks"].shape == (2, 3, 20, 30)
        assert np.abs(np.diff(outputs["low_res_logits"], axis=0)).max() > 0.01

    def test_predict_goes_through_a_data_set_in_batches(self, sam: SAM) -> None:
        images = random_image(20, 30, batch=3)
        inputs = {"image": images, "points": (np.full((3, 1, 2), 9.0), np.ones((3, 1)))}
        predicted = sam.predict(inputs, batch_size=2, verbose=0)
        assert predicted["masks"].dtype == bool
        assert_equal(predicted, as_arrays(sam(inputs)), atol=1e-4)


class TestSizes:
    @pytest.mark.parametrize(
        "size",
        [
            pytest.param((31, 95), id="ints"),
            pytest.param([31, 95], id="list"),
            pytest.param((np.int64(31), np.int32(95)), id="numpy-ints"),
            pytest.param(np.array([31, 95]), id="array"),
            pytest.param(np.array([31.0, 95.0]), id="float-array"),
            pytest.param(ops.convert_to_tensor([31, 95]), id="tensor"),
        ],
    )
    def test_original_size_is_only_the_size_of_the_masks(
        self, sam: SAM, of_point: Outputs, size: Any
    ) -> None:
        outputs = run(sam, points=POINTS, original_size=size)
        assert outputs["masks"].shape == (1, 3, 31, 95)
        np.testing.assert_array_equal(outputs["low_res_logits"], of_point["low_res_logits"])

    @pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (64, 64), (64, 20), (150, 37)])
    def test_images_of_any_size(self, sam: SAM, size: tuple[int, int]) -> None:
        outputs = as_arrays(sam({"image": random_image(*size), "points": ([[[0, 0]]], [[1]])}))
        assert outputs["masks"].shape == (1, 3, *size)
        assert np.isfinite(outputs["low_res_logits"]).all()

    def test_postprocess_masks_equals_two_plain_resizes(self, sam: SAM) -> None:
        logits = np.random.default_rng(0).normal(0, 4, (2, 3, LOW_RES, LOW_RES)).astype("float32")
        for input_hw, output_hw in [((38, 64), (48, 80)), ((64, 10), (33, 5)), ((64, 64), (7, 7))]:
            actual = as_arrays(sam.postprocess_masks(logits, input_hw, np.array(output_hw)))
            assert actual.dtype == np.float32
            expected = two_resizes(logits, IMG_SIZE, input_hw, output_hw)
            np.testing.assert_allclose(actual, expected, atol=2e-4)


class TestPreprocess:
    @pytest.mark.parametrize("size", [(48, 80), (80, 48), (20, 30), (64, 64), (64, 31), (300, 3)])
    def test_equals_pillow_then_normalisation_then_padding(
        self, sam: SAM, size: tuple[int, int]
    ) -> None:
        image = random_image(*size)
        scale = IMG_SIZE / max(size)
        height, width = (max(int(side * scale + 0.5), 1) for side in size)
        resized = np.asarray(Image.fromarray(image[0]).resize((width, height), Image.BILINEAR))
        expected = np.zeros((1, IMG_SIZE, IMG_SIZE, 3))
        expected[0, :height, :width] = (resized - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)
        actual = as_arrays(sam.preprocess(image))
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
        # Exactly zero where there is no image, and the same for levels that come as floats.
        assert not actual[0, height:].any()
        assert not actual[0, :, width:].any()
        for dtype in ("float32", "float64"):
            np.testing.assert_array_equal(as_arrays(sam.preprocess(image.astype(dtype))), actual)

    def test_keeps_fractions_of_an_image_that_needs_no_resize(self, sam: SAM) -> None:
        image = random_image(IMG_SIZE, 20) + np.float32(0.25)
        expected = (image - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)
        np.testing.assert_allclose(
            as_arrays(sam.preprocess(image))[:, :, :20], expected, rtol=1e-5, atol=1e-6
        )


class TestGraphs:
    def test_inside_a_tf_function_of_fixed_shapes(self, sam: SAM, of_point: Outputs) -> None:
        call = tf.function(lambda image: sam({"image": image, "points": POINTS}))
        assert_equal(as_arrays(call(IMAGE)), of_point, atol=1e-4)

    def test_inside_a_tf_function_of_open_shapes(self, sam: SAM) -> None:
        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec((None, 64, None, 3), tf.uint8),
                tf.TensorSpec((None, None, 2)),
                tf.TensorSpec((2,), tf.int32),
                tf.TensorSpec((), tf.bool),
            ]
        )
        def call(image: Any, coords: Any, size: Any, multimask: Any) -> Any:
            return sam(
                {
                    "image": image,
                    "points": (coords, tf.ones(tf.shape(coords)[:2])),
                    "original_size": size,
                    "multimask_output": multimask,
                }
            )

        for width, size, points, multimask in [(64, (9, 8), 1, True), (90, (64, 90), 2, False)]:
            image = random_image(64, width)
            coords = np.full((3, points, 2), 30.0)
            expected = sam(
                {
                    "image": image,
                    "points": (coords, np.ones((3, points))),
                    "original_size": size,
                    "multimask_output": multimask,
                }
            )
            actual = call(image, coords, size, multimask)
            assert_equal(as_arrays(actual), as_arrays(expected), atol=1e-4)

    def test_as_a_part_of_another_model(self, sam: SAM, of_point: Outputs) -> None:
        class WithHead(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.sam = sam

            def call(self, inputs: Any, training: bool = False) -> Any:
                return {**self.sam(inputs, training=training), "more": inputs["image"]}

        inputs = {key: tf.constant(value) for key, value in [("image", IMAGE)]}
        outputs = WithHead()({**inputs, "points": tuple(map(tf.constant, POINTS))})
        assert outputs.pop("more").shape == IMAGE.shape
        assert_equal(as_arrays(outputs), of_point)


class TestParts:
    def test_parts_that_do_not_fit_are_refused(self, sam: SAM) -> None:
        encoder, prompts, decoder = sam.image_encoder, sam.prompt_encoder, sam.mask_decoder
        with pytest.raises(ValueError, match=r"must be equal. Received: \(32, 32, 64\)"):
            SAM(encoder, prompts, MaskDecoder(64))
        other = PromptEncoder(CHANNELS, (GRID, GRID), (128, 128))
        with pytest.raises(ValueError, match=r"\(64, 64\).*Received.*\(128, 128\)"):
            SAM(encoder, other, decoder)
        with pytest.raises(ValueError, match=r"must be .RGB.\. Received: 'BGR'"):
            SAM(encoder, prompts, decoder, image_format="BGR")


class TestSaving:
    def test_keras_file_gives_an_equal_model(
        self, sam: SAM, of_point: Outputs, tmp_path: Path
    ) -> None:
        sam.save(tmp_path / "sam.keras")
        loaded = keras.models.load_model(tmp_path / "sam.keras")
        assert type(loaded) is SAM
        assert_equal(run(loaded, points=POINTS), of_point)
        assert loaded.get_config() == sam.get_config()

    def test_weights_file_fills_another_model(
        self, sam: SAM, of_point: Outputs, tmp_path: Path
    ) -> None:
        sam.save_weights(tmp_path / "sam.weights.h5")
        other = make_sam(seed=1)
        other.load_weights(tmp_path / "sam.weights.h5")
        assert_equal(run(other, points=POINTS), of_point)

    def test_config_holds_every_argument(self) -> None:
        sam = make_sam(
            pixel_mean=(1, 2, 3), pixel_std=(4, 5, 6), mask_threshold=0.5, variant="mine"
        )
        again = SAM.from_config(sam.get_config())
        assert again.built
        assert again.get_config() == sam.get_config()
        assert (again.pixel_mean, again.pixel_std) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
        assert (again.mask_threshold, again.variant, again.image_format) == (0.5, "mine", "RGB")

    def test_clone_and_summary_work_on_a_model_that_was_never_called(self) -> None:
        sam = make_sam()
        clone = keras.models.clone_model(sam)
        assert [v.shape for v in clone.variables] == [v.shape for v in sam.variables]
        lines: list[str] = []
        clone.summary(print_fn=lines.append)
        assert "(None, 8, 8, 32)" in "\n".join(lines)


@pytest.fixture
def global_float16() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


class TestMixedPrecision:
    @pytest.mark.parametrize(
        ("policy", "tolerance"), [("mixed_float16", 0.02), ("mixed_bfloat16", 0.1)]
    )
    def test_outputs_are_float32_and_near(
        self, sam: SAM, of_point: Outputs, policy: str, tolerance: float
    ) -> None:
        half = make_sam(dtype=policy)
        half.set_weights(sam.get_weights())
        outputs = run(half, points=POINTS)
        assert {variable.dtype for variable in half.variables} == {"float32"}
        assert half.image_encoder(half.preprocess(IMAGE)).dtype == policy.removeprefix("mixed_")
        for key in ("low_res_logits", "iou_predictions"):
            assert outputs[key].dtype == np.float32
            difference = np.abs(outputs[key] - of_point[key]).max()
            # Not zero, or nothing would have been computed in half precision.
            assert 0 < difference < tolerance * np.abs(of_point[key]).max()
        assert (outputs["masks"] != of_point["masks"]).mean() < tolerance
        np.testing.assert_array_equal(
            as_arrays(half.preprocess(IMAGE)), as_arrays(sam.preprocess(IMAGE))
        )

    def test_coordinates_are_not_rounded(self) -> None:
        # float16 knows only every second integer above 2048.
        half = make_sam(dtype="mixed_float16")
        image = random_image(40, 2100)
        points = np.array([[[2048.0, 9.0]], [[2049.0, 9.0]]])
        scores = as_arrays(half({"image": image, "points": (points, np.ones((2, 1)))}))
        assert np.abs(np.diff(scores["iou_predictions"], axis=0)).max() > 0
        boxes = np.array([[[5, 5, 2048.0, 9.0]], [[5, 5, 2049.0, 9.0]]])
        scores = as_arrays(half({"image": image, "boxes": boxes}))
        assert np.abs(np.diff(scores["iou_predictions"], axis=0)).max() > 0

    def test_policy_survives_saving(self, tmp_path: Path) -> None:
        half = make_sam(dtype="mixed_bfloat16")
        half.save(tmp_path / "half.keras")
        loaded = keras.models.load_model(tmp_path / "half.keras")
        assert loaded.image_encoder.blocks[0].mlp.lin1.compute_dtype == "bfloat16"
        assert loaded.prompt_encoder.compute_dtype == "float32"
        assert_equal(run(loaded, points=POINTS), run(half, points=POINTS))

    @pytest.mark.usefixtures("global_float16")
    def test_global_policy_applies_to_a_variant(self) -> None:
        sam = SAM.from_variant("tiny", weights=None)
        assert sam.image_encoder.blocks[0].attn.qkv.compute_dtype == "float16"
        assert sam.mask_decoder.transformer.layers[0].compute_dtype == "float16"
        assert sam.mask_decoder.iou_prediction_head.layers[0].compute_dtype == "float32"
        assert sam.prompt_encoder.compute_dtype == "float32"


class TestVariants:
    def test_vit_b_is_built_and_of_the_published_size(self) -> None:
        sam = SAM.from_variant("vit_b", weights=None)
        assert sam.built
        assert sum(v.value.shape.num_elements() for v in sam.trainable_variables) == 93_735_472
        assert sam.count_params() == 93_735_728
        assert (sam.variant, len(sam.image_encoder.blocks)) == ("vit_b", 12)

    def test_tiny_has_the_presets_sizes_and_the_shared_rest(self) -> None:
        sam = SAM.from_variant("tiny", weights=None)
        preset, encoder, decoder = PRESETS["tiny"], sam.image_encoder, sam.mask_decoder
        assert sam.built
        assert sam.variant == "tiny"
        for name in ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "window_size"):
            assert getattr(encoder, name) == getattr(preset, name)
        assert encoder.global_attn_indexes == preset.global_attn_indexes
        assert (decoder.transformer.num_heads, decoder.transformer.depth) == (8, 2)
        assert (decoder.num_multimask_outputs, decoder.iou_head_depth) == (3, 3)
        assert decoder.transformer.mlp_dim == preset.mlp_dim
        assert decoder.iou_head_hidden_dim == preset.iou_head_hidden_dim
        assert sam.pixel_mean == list(PIXEL_MEAN)
        assert sam.pixel_std == list(PIXEL_STD)

    def test_unknown_variant_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"tiny, vit_b, vit_l, vit_h\. Received: 'vit_x'"):
            SAM.from_variant("vit_x")

    def test_weights_are_loaded_from_a_path_or_from_the_package(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = SAM.from_variant("tiny", weights=None)
        source.save_weights(tmp_path / "tiny.weights.h5")
        path = str(tmp_path / "tiny.weights.h5")
        monkeypatch.setattr("amg_pipeline.assets.packaged_weights", lambda _: path)
        for loaded in (
            SAM.from_variant("tiny", weights=path),
            SAM.from_variant("tiny"),
        ):
            for actual, expected in zip(loaded.get_weights(), source.get_weights(), strict=True):
                np.testing.assert_array_equal(actual, expected)

    def test_none_is_random_even_where_weights_are_packaged(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("amg_pipeline.assets.packaged_weights", lambda _: "/no/such/file")
        first, second = (SAM.from_variant("tiny", weights=None) for _ in range(2))
        first_kernel, second_kernel = (
            as_arrays(sam.image_encoder.patch_embed.kernel) for sam in (first, second)
        )
        assert (first_kernel != second_kernel).any()

    def test_further_arguments_reach_the_model(self) -> None:
        sam = SAM.from_variant("tiny", weights=None, mask_threshold=0.5, name="mine")
        assert (sam.mask_threshold, sam.name) == (0.5, "mine")

    def test_freezing_the_encoder_leaves_prompts_and_decoder(self) -> None:
        sam = make_sam()
        sam.image_encoder.trainable = False
        kept = [*sam.prompt_encoder.trainable_variables, *sam.mask_decoder.trainable_variables]
        assert len(sam.trainable_variables) == len(kept)
