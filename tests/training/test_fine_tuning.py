from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam import SAM
from amg_pipeline.training.fine_tuning import (
    LayerwiseAdamW,
    ProgressiveUnfreezing,
    freeze_encoder,
    layer_rates,
)
from tests.sam.small_sam import as_arrays
from tests.training.labelled_images import small_batches, small_sam, small_trainer
from tests.training.small_preset import SMALL


def deep_sam() -> SAM:
    return SAM.from_preset(replace(SMALL, depth=3))


def trained_parts(sam: SAM) -> set[str]:
    parts = ("patch_embed", "pos_embed", "blocks_0", "blocks_1", "blocks_2", "neck")
    return {p for p in parts for v in sam.image_encoder.trainable_variables if p in v.path}


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (0, set()),
        (1, {"blocks_2", "neck"}),
        (2, {"blocks_1", "blocks_2", "neck"}),
        (3, {"patch_embed", "pos_embed", "blocks_0", "blocks_1", "blocks_2", "neck"}),
    ],
)
def test_the_encoder_is_frozen_but_for_its_last_blocks(blocks: int, expected: set[str]) -> None:
    sam = deep_sam()
    freeze_encoder(sam, trained_blocks=3)
    freeze_encoder(sam, trained_blocks=blocks)
    assert trained_parts(sam) == expected
    assert sam.mask_decoder.trainable_variables


@pytest.mark.parametrize("trained", [{}, {1: 2}])
def test_unfreezing_begins_with_the_first_epoch(trained: dict[int, int]) -> None:
    with pytest.raises(ConfigError, match="epoch 0"):
        ProgressiveUnfreezing(trained)


@pytest.mark.training
def test_unfreezing_lets_blocks_join_while_a_model_is_fitted() -> None:
    sam = small_sam()
    trainer = small_trainer(sam)
    encoder = [as_arrays(sam.image_encoder.variables)]
    remember = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: encoder.append(as_arrays(sam.image_encoder.variables))
    )
    trainer.fit(
        small_batches(sam, steps=1),
        epochs=2,
        verbose=0,
        callbacks=[ProgressiveUnfreezing({0: 0, 1: 1}), remember],
    )
    for before, after in zip(encoder[0], encoder[1], strict=True):
        np.testing.assert_array_equal(before, after)
    assert any((a != b).any() for a, b in zip(encoder[1], encoder[2], strict=True))


def test_rates_fall_towards_the_input() -> None:
    sam = deep_sam()
    rates = {path.split("image_encoder/")[-1]: rate for path, rate in layer_rates(sam, 0.5).items()}
    assert rates["blocks_2/attn/qkv/kernel"] == 0.5
    assert rates["blocks_0/mlp/lin1/bias"] == 0.125
    assert rates["patch_embed/kernel"] == rates["pos_embed"] == 0.0625
    assert not any("neck" in path for path in rates)
    with pytest.raises(ConfigError, match="layer_decay"):
        layer_rates(sam, 0.0)


def step(optimizer: Any, gradient: float) -> list[float]:
    variables = [keras.Variable(np.full((2, 2), 1.0), name=name) for name in ("a", "b")]
    optimizer.apply([ops.full((2, 2), gradient)] * 2, variables)
    return [float(as_arrays(v)[0, 0]) - 1.0 for v in variables]


def test_a_layers_rate_scales_its_steps_and_not_its_gradients() -> None:
    # Adam's first step is the learning rate, whatever the gradient's size.
    moved = step(LayerwiseAdamW(0.1, rates={"b": 0.25}, decay=0.0), 7.0)
    np.testing.assert_allclose(moved, [-0.1, -0.025], rtol=1e-4)


def test_without_rates_it_is_adamw() -> None:
    ours = step(LayerwiseAdamW(0.1, decay=0.2), 3.0)
    np.testing.assert_allclose(
        ours, step(keras.optimizers.AdamW(0.1, weight_decay=0.2), 3.0), rtol=1e-5
    )


def test_weight_decay_is_scaled_with_the_step() -> None:
    moved = step(LayerwiseAdamW(0.1, rates={"b": 0.25}, decay=0.2), 0.0)
    np.testing.assert_allclose(moved, [-0.02, -0.005], rtol=1e-3)


def test_embeddings_biases_and_norms_do_not_decay() -> None:
    variables = small_sam().trainable_variables
    before = as_arrays(variables)
    optimizer = LayerwiseAdamW(0.1, decay=0.2)
    optimizer.apply([ops.zeros(v.shape) for v in variables], variables)
    pairs = zip(variables, before, strict=True)
    moved = {v.path for v, values in pairs if (as_arrays(v) != values).any()}
    # Relative positions would decay, but begin with zero.
    assert moved == {v.path for v in variables if v.name == "kernel"}


def test_rates_survive_saving() -> None:
    optimizer = LayerwiseAdamW(0.1, rates={"b": 0.25}, decay=0.2)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert (copy.rates, copy.decay) == ({"b": 0.25}, 0.2)


@pytest.mark.training
# The described loss has no use for predicted IoU, and no mask is shown.
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_the_classification_head_of_the_description_is_trained() -> None:
    """Section 11 of the user's description, strategy 3, on a smaller model."""

    def dice_loss(y_true: Any, y_pred: Any) -> Any:
        y_pred = ops.sigmoid(y_pred)
        overlap = ops.sum(y_true * y_pred, axis=[1, 2, 3])
        union = ops.sum(y_true, axis=[1, 2, 3]) + ops.sum(y_pred, axis=[1, 2, 3])
        return 1.0 - (2.0 * overlap + 1e-6) / (union + 1e-6)

    def focal_loss(y_true: Any, y_pred: Any, alpha: float = 0.25, gamma: float = 2.0) -> Any:
        y_pred = ops.sigmoid(y_pred)
        ce = ops.binary_crossentropy(y_true, y_pred, from_logits=False)
        p_t = y_true * y_pred + (1 - y_true) * (1 - y_pred)
        alpha_t = y_true * alpha + (1 - y_true) * (1 - alpha)
        return ops.mean(alpha_t * ops.power(1 - p_t, gamma) * ce)

    def multitask_loss(outputs: Any, targets: Any) -> Any:
        logits = outputs["low_res_logits"]
        seg_loss = dice_loss(targets["masks"], logits) + focal_loss(targets["masks"], logits)
        cls_loss = keras.losses.categorical_crossentropy(targets["labels"], outputs["class_probs"])
        return seg_loss + 0.5 * cls_loss

    class WithHead(keras.Model):
        def __init__(self, sam_model: SAM, num_classes: int) -> None:
            super().__init__()
            self.sam = sam_model
            self.global_pool = keras.layers.GlobalAveragePooling2D()
            self.classifier = keras.Sequential(
                [
                    keras.layers.Dense(16, activation="relu"),
                    keras.layers.Dropout(0.5),
                    keras.layers.Dense(num_classes, activation="softmax"),
                ]
            )

        def call(self, inputs: Any, training: bool = False) -> Any:
            outputs = self.sam(inputs, training=training)
            features = self.sam.image_encoder(inputs["image"], training=training)
            features = self.global_pool(features)
            return {**outputs, "class_probs": self.classifier(features, training=training)}

        def compute_loss(self, x: Any, y: Any, y_pred: Any, *_: Any, **__: Any) -> Any:
            return ops.mean(multitask_loss(y_pred, y))

    model = WithHead(small_sam(), num_classes=4)
    image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    points = (np.full((2, 1, 2), 9.0, np.float32), np.ones((2, 1), np.int32))
    inputs = {"image": image, "points": points}
    outputs = model(inputs, training=True)
    assert outputs["class_probs"].shape == (2, 4)
    assert outputs["low_res_logits"].shape == (2, 3, 8, 8)
    parts = (model.classifier, model.sam.mask_decoder, model.sam.image_encoder)
    before = [as_arrays(part.trainable_variables) for part in parts]
    masks = np.zeros((2, 3, 8, 8), np.float32)
    masks[:, :, :4, :4] = 1.0
    model.compile(optimizer=keras.optimizers.SGD(0.1), run_eagerly=True)
    loss = model.train_on_batch(inputs, {"masks": masks, "labels": np.eye(4, dtype="float32")[:2]})
    assert np.isfinite(loss)
    for part, old in zip(parts, before, strict=True):
        new = as_arrays(part.trainable_variables)
        assert any((a != b).any() for a, b in zip(new, old, strict=True)), part.name
