from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from amg_pipeline.sam import SAM
from amg_pipeline.training.losses import dice_losses, focal_losses
from amg_pipeline.training.trainer import SAMTrainer, heeds_mask_prompts
from tests.sam.small_sam import IMG_SIZE, LOW_RES, as_arrays, make_sam, random_image
from tests.training.labelled_images import small_batches, small_sam, small_trainer
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
    def make(self, **arguments: Any) -> tuple[SAMTrainer, Any, Any, Any]:
        trainer = SAMTrainer(make_sam(), **{"rounds": 1, **arguments})
        trainer.compile(optimizer="sgd")
        points = np.array([[[[9.0, 9.0]], [[30.0, 40.0]]]], np.float32)
        inputs = tensors(
            {"image": random_image(IMG_SIZE, IMG_SIZE), "points": (points, np.ones((1, 2, 1)))}
        )
        masks = np.zeros((1, 2, LOW_RES, LOW_RES), np.float32)
        masks[0, 0, 2:9, 2:9] = 1  # the second prompt means nothing and must not count
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
