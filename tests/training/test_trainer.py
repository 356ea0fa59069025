from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from amg_pipeline.sam import SAM
from amg_pipeline.training.fine_tuning import ProgressiveUnfreezing
from amg_pipeline.training.labelled_views import LabelledViews
from amg_pipeline.training.losses import dice_losses, focal_losses
from amg_pipeline.training.prompted_batches import PromptedBatches
from amg_pipeline.training.tiny_recipe import ignore_mask_prompts
from amg_pipeline.training.trainer import SAMTrainer, heeds_mask_prompts
from tests.sam.small_sam import IMG_SIZE, LOW_RES, as_arrays, make_sam, random_image
from tests.training.labelled_images import (
    Drawing,
    drawings,
    small_batches,
    small_sam,
    small_trainer,
)
from tests.training.small_preset import SMALL

pytestmark = pytest.mark.filterwarnings(
    # Keras passes TensorFlow variables to np.array; TensorFlow does not know NumPy 2's `copy` yet.
    "ignore:__array__ implementation:DeprecationWarning"
)


def tensors(structure: Any) -> Any:
    return keras.tree.map_structure(ops.convert_to_tensor, structure)


def changed(trainer: SAMTrainer, before: list[Any]) -> set[str]:
    """Give the parts of the SAM that have changed."""
    return {
        next(p for p in ("image_encoder", "prompt_encoder", "mask_decoder") if p in v.path)
        for v, values in zip(trainer.sam.variables, before, strict=True)
        if (as_arrays(v) != values).any()
    }


def test_answers_are_those_of_the_model_for_an_image_of_any_size() -> None:
    sam = make_sam()
    inputs = {
        "image": random_image(50, 90),
        "points": (np.array([[[20.0, 30.0], [70.0, 10.0]]], np.float32), np.array([[1, 0]])),
        "boxes": np.array([[[3.0, 4.0, 60.0, 40.0]]], np.float32),
    }
    expected = as_arrays(sam(inputs))
    answer = as_arrays(SAMTrainer(sam)(tensors(inputs)))
    np.testing.assert_allclose(
        answer["low_res_logits"][:, 1:], expected["low_res_logits"], atol=1e-3
    )
    np.testing.assert_allclose(
        answer["iou_predictions"][:, 1:], expected["iou_predictions"], atol=1e-4
    )


class TestLoss:
    def make(self, prompts: int = 2, **arguments: Any) -> tuple[SAMTrainer, Any, Any, Any]:
        trainer = SAMTrainer(make_sam(), **{"rounds": 1, **arguments})
        trainer.compile(optimizer="sgd")
        points = np.full((1, prompts, 1, 2), (30.0, 40.0), np.float32)
        points[0, 0] = 9.0
        labels = np.ones((1, prompts, 1))
        inputs = tensors({"image": random_image(IMG_SIZE, IMG_SIZE), "points": (points, labels)})
        masks = np.zeros((1, prompts, LOW_RES, LOW_RES), np.float32)
        masks[0, 0, 2:9, 2:9] = 1  # the other prompts mean nothing and must not count
        return trainer, inputs, tensors({"masks": masks}), trainer(inputs)

    def test_equals_the_sum_of_its_parts(self) -> None:
        trainer, x, y, answer = self.make(single_mask_weight=0.25, iou_weight=3.0)
        loss = float(trainer.compute_loss(x, y, answer))
        logits = as_arrays(answer["low_res_logits"])[:1].reshape(1, 4, -1)
        target = as_arrays(y["masks"])[:, :1].reshape(1, 1, -1)
        losses = as_arrays(20 * focal_losses(logits, target) + dice_losses(logits, target))[0, :, 0]
        mask, covered = logits[0] > 0, target[0] > 0
        ious = (mask & covered).sum(-1) / (mask | covered).sum(-1)
        score = np.mean((as_arrays(answer["iou_predictions"])[0] - ious) ** 2)
        expected = losses[1:].min() + 0.25 * losses[0] + 3 * score
        assert loss == pytest.approx(expected, rel=1e-4)
        metrics = {metric.name: float(metric.result()) for metric in trainer.metrics}
        assert metrics["best_iou"] == pytest.approx(ious[1:].max(), abs=1e-5)

    @pytest.mark.parametrize("per_prompt", [True, False])
    def test_a_loss_of_ones_own_takes_the_place_of_focal_and_dice(self, per_prompt: bool) -> None:
        def distance(target: Any, logits: Any) -> Any:
            each = ops.mean(ops.abs(ops.sigmoid(logits) - target), axis=(1, 2, 3))
            return each if per_prompt else ops.mean(each)

        trainer, x, y, answer = self.make(single_mask_weight=0.0)
        trainer.compile(optimizer="sgd", loss={"masks": distance, "ious": lambda t, p: 0.0 * p})
        loss = float(trainer.compute_loss(x, y, answer))
        probability = as_arrays(ops.sigmoid(answer["low_res_logits"]))
        target = as_arrays(y["masks"])[0][:, None]
        each = np.abs(probability - target).mean(axis=(2, 3))[:, 1:]
        expected = each[0].min() if per_prompt else each.mean(axis=0).min()
        assert loss == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize("prompts", [2, LOW_RES])  # the latter as many as rows of a mask
    @pytest.mark.parametrize("name", ["mse", "binary_crossentropy"])
    def test_a_loss_may_be_named_as_keras_does(self, name: str, prompts: int) -> None:
        trainer, x, y, answer = self.make(prompts, single_mask_weight=0.0, iou_weight=0.0)
        trainer.compile(optimizer="sgd", loss=name)
        loss = float(trainer.compute_loss(x, y, answer))
        logits, target = as_arrays(answer["low_res_logits"])[0], as_arrays(y["masks"])[0, 0]
        if name == "mse":
            each = (logits - target) ** 2
        else:
            given = np.clip(logits, 1e-7, 1 - 1e-7)
            each = -(target * np.log(given) + (1 - target) * np.log(1 - given))
        assert loss == pytest.approx(each.mean(axis=(1, 2))[1:].min(), rel=1e-4)

    def test_a_loss_of_scores_may_be_named_and_counts_what_means_a_mask(self) -> None:
        trainer, x, y, answer = self.make(single_mask_weight=0.0)
        usual = float(trainer.compute_loss(x, y, answer))
        trainer.compile(optimizer="sgd", loss={"ious": "mse"})
        assert float(trainer.compute_loss(x, y, answer)) == pytest.approx(usual, rel=1e-5)

    def test_sample_weights_choose_images(self) -> None:
        trainer, x, y, answer = self.make()
        nothing = trainer.compute_loss(x, y, answer, sample_weight=np.zeros(1))
        assert float(nothing) == 0.0

    def test_targets_are_asked_for(self) -> None:
        trainer, x, _, answer = self.make()
        with pytest.raises(ValueError, match="targets"):
            trainer.compute_loss(x, None, answer)

    def test_a_further_round_clicks_on_a_fault_and_shows_the_mask(self) -> None:
        trainer, x, y, answer = self.make(rounds=2, mask_prompts=True)
        seen = []
        answering = trainer._answer
        trainer._answer = lambda *given: seen.append(given) or answering(*given)
        x["draws"] = ops.convert_to_tensor(np.array([[[0.0], [0.5]]], np.float32))
        trainer.compute_loss(x, y, answer)
        ((_, coords, labels, masks),) = as_arrays(seen)
        logits = as_arrays(answer["low_res_logits"])[:, 1:]
        top = as_arrays(answer["iou_predictions"])[:, 1:].argmax(axis=1)
        np.testing.assert_array_equal(masks[:, 0], logits[[0, 1], top])
        column, row = ((coords[0, -1] + 0.5) / (IMG_SIZE / LOW_RES) - 0.5).round().astype(int)
        target = as_arrays(y["masks"])[0, 0]
        assert (masks[0, 0, row, column] > 0) != (target[row, column] > 0)
        assert labels[0].tolist() == [1, -1, int(target[row, column])]


@pytest.mark.training
class TestFitting:
    def test_what_is_frozen_stays_and_the_rest_learns(self) -> None:
        sam = small_sam()
        sam.image_encoder.trainable = False
        trainer = small_trainer(sam, keras.optimizers.SGD(0.05, clipnorm=1.0))
        before = as_arrays(sam.variables)
        history = trainer.fit(small_batches(sam), epochs=2, verbose=0).history
        assert history["loss"][1] < history["loss"][0]
        names = {"loss", "mask_loss", "iou_loss", "best_iou", "top_iou", "last_iou"}
        assert set(history) == names
        assert changed(trainer, before) == {"prompt_encoder", "mask_decoder"}

    def test_parts_may_be_unfrozen_between_two_fits(self) -> None:
        sam = small_sam()
        sam.image_encoder.trainable = False
        trainer = small_trainer(sam)
        batches = small_batches(sam, steps=1)
        trainer.fit(batches, verbose=0)
        momenta = {v.path: as_arrays(v) for v in trainer.optimizer.variables}
        sam.image_encoder.trainable = True
        trainer.follow_trainable()
        kept = {v.path: as_arrays(v) for v in trainer.optimizer.variables}
        assert len(kept) > len(momenta)
        for path, values in momenta.items():
            np.testing.assert_array_equal(kept[path], values)
        before = as_arrays(sam.variables)
        trainer.optimizer.learning_rate.assign(1e-3)
        trainer.fit(batches, verbose=0)
        assert "image_encoder" in changed(trainer, before)
        assert int(trainer.optimizer.iterations) == 2

    @pytest.mark.parametrize("unfreezing", [False, True])
    def test_a_model_that_ignores_mask_prompts_goes_on_to(self, unfreezing: bool) -> None:
        sam = small_sam()
        ignore_mask_prompts(sam)
        before = as_arrays(sam.variables)
        trainer = small_trainer(sam)
        callbacks = [ProgressiveUnfreezing({0: 0})] if unfreezing else []
        trainer.fit(small_batches(sam, steps=1), verbose=0, callbacks=callbacks)
        assert "prompt_encoder" in changed(trainer, before)
        inputs = {
            "image": random_image(32, 32),
            "points": (np.full((1, 1, 2), 9.0, np.float32), np.ones((1, 1), np.int32)),
        }
        mask = np.random.default_rng(0).normal(0, 9, (1, 1, 8, 8)).astype(np.float32)
        found, shown = (as_arrays(sam(x)) for x in (inputs, {**inputs, "masks": mask}))
        np.testing.assert_array_equal(shown["low_res_logits"], found["low_res_logits"])
        np.testing.assert_array_equal(shown["iou_predictions"], found["iou_predictions"])

    def test_measurements_do_not_depend_on_the_size_of_batches(self) -> None:
        sam = small_sam()
        trainer = small_trainer(sam)
        images = [*drawings(4), Drawing(seed=9, rectangles=0), Drawing(seed=10)]
        views = LabelledViews(images, sam, augmentation=None)
        found = [
            trainer.evaluate(
                PromptedBatches(views, batch_size=size, prompts=2, rounds=2),
                verbose=0,
                return_dict=True,
            )
            for size in (1, 4, 5, 6)
        ]
        assert found[0]["loss"] > 0
        for other in found[1:]:
            assert other == pytest.approx(found[0], rel=1e-4)

    def test_a_pipeline_may_give_images_of_any_size(self) -> None:
        def examples() -> Any:
            for height, width in ((20, 30), (40, 25), (32, 32)):
                masks = np.zeros((1, 2, height, width), np.float32)
                masks[:, 0, 4:12, 4:12] = masks[:, 1, 9:18, 2:19] = 1
                clicks = np.array([[[[6, 6]], [[9, 12]]]], np.float32)
                image = random_image(height, width)
                draws = np.full((1, 2, 1), 0.4, np.float32)
                points = clicks, np.ones((1, 2, 1), np.int32)
                yield {"image": image, "points": points, "draws": draws}, {"masks": masks}

        signature = (
            {
                "image": tf.TensorSpec((1, None, None, 3), tf.uint8),
                "points": (tf.TensorSpec((1, 2, 1, 2)), tf.TensorSpec((1, 2, 1), tf.int32)),
                "draws": tf.TensorSpec((1, 2, 1)),
            },
            {"masks": tf.TensorSpec((1, 2, None, None))},
        )
        data = tf.data.Dataset.from_generator(examples, output_signature=signature).repeat()
        losses = []
        for run_eagerly in (False, True):
            trainer = SAMTrainer(small_sam(), rounds=2)
            trainer.compile(optimizer=keras.optimizers.SGD(1e-3), run_eagerly=run_eagerly)
            fitted = trainer.fit(data, steps_per_epoch=3, shuffle=False, verbose=0)
            losses.append(fitted.history["loss"])
        np.testing.assert_allclose(*losses, rtol=1e-3)

    def test_half_precision_trains(self) -> None:
        sam = SAM.from_preset(SMALL, dtype="mixed_bfloat16")
        trainer = small_trainer(sam)
        history = trainer.fit(small_batches(sam, steps=1), verbose=0).history
        assert np.isfinite(history["loss"]).all()
        assert {v.dtype for v in sam.trainable_variables} == {"float32"}

    def test_nothing_to_train_is_refused(self) -> None:
        sam = small_sam()
        sam.trainable = False
        trainer = small_trainer(sam)
        with pytest.raises(ValueError, match="Nothing is trainable"):
            trainer.fit(small_batches(sam))


def test_mask_prompts_are_shown_unless_the_model_ignores_them() -> None:
    sam = small_sam()
    assert heeds_mask_prompts(sam)
    last = sam.prompt_encoder.mask_downscaling[-1]
    last.kernel.assign(ops.zeros_like(last.kernel))
    assert not heeds_mask_prompts(sam)
    assert not SAMTrainer(sam).mask_prompts
    assert not last.trainable  # no gradients would reach it
    assert not sam.prompt_encoder.no_mask_embed.trainable  # what stands for none stays equal to it


def test_a_model_that_heeds_mask_prompts_may_learn_without() -> None:
    sam = small_sam()
    SAMTrainer(sam, mask_prompts=False)
    assert not sam.prompt_encoder.mask_downscaling[-1].trainable
    assert sam.prompt_encoder.no_mask_embed.trainable


@pytest.mark.training
def test_a_saved_trainer_goes_on(tmp_path: Path) -> None:
    sam = small_sam()
    sam.image_encoder.trainable = False
    trainer = small_trainer(sam, rounds=1)
    batches = small_batches(sam, steps=1, rounds=1)
    trainer.fit(batches, verbose=0)
    trainer.save(tmp_path / "best.keras")
    loaded = keras.models.load_model(tmp_path / "best.keras")
    np.testing.assert_equal(as_arrays(loaded.sam.variables), as_arrays(sam.variables))
    assert len(loaded.trainable_variables) == len(trainer.trainable_variables)
    np.testing.assert_equal(
        as_arrays(loaded.optimizer.variables), as_arrays(trainer.optimizer.variables)
    )


def test_a_trainer_has_at_least_one_round() -> None:
    with pytest.raises(ValueError, match="rounds"):
        SAMTrainer(small_sam(), rounds=0)
