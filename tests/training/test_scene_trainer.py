from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.training import scene_trainer
from amg_pipeline.training.batches import SceneBatches, Source, ViewSettings
from amg_pipeline.training.losses import dice_losses, focal_losses
from amg_pipeline.training.scene_cache import SceneCache, render_scenes
from amg_pipeline.training.scene_trainer import SceneTrainer, cut_targets
from tests.sam.small_sam import GRID, IMG_SIZE, LOW_RES, as_arrays, make_sam

# Keras warns of the mask prompts' convolutions, which this training never uses.
pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")

LEVELS = 3
VIEWS = ViewSettings(size=IMG_SIZE, label_size=LOW_RES, batch_size=2, prompts=3, augment=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> SceneCache:
    folder = tmp_path_factory.mktemp("scenes")
    return render_scenes(folder, count=4, size=2 * IMG_SIZE, seed=0, processes=1)


def batches_of(cache: SceneCache, views: ViewSettings, steps: int = 1) -> SceneBatches:
    return SceneBatches([Source(cache)], views, steps=steps, seed=0)


def tensors(structure: Any) -> Any:
    return keras.tree.map_structure(ops.convert_to_tensor, structure)


class TestTargets:
    label_maps = np.zeros((1, 2, 8, 4), np.uint8)
    label_maps[0, 0, :, :3] = 1
    label_maps[0, 1, 6, 0] = 2
    ids = np.array([[[1, 0], [1, 2]]], np.uint8)

    def cut(self, cells: Any = None) -> Any:
        targets = tensors({"label_maps": self.label_maps, "target_ids": self.ids})
        return as_arrays(cut_targets(targets, cells))

    def test_masks_are_cut_from_the_label_maps_by_prompt_and_level(self) -> None:
        covered, is_target = self.cut()
        assert covered.shape == (2, 2, 32)
        np.testing.assert_array_equal(is_target, [[1, 0], [1, 1]])
        np.testing.assert_array_equal(covered[:, 0].sum(axis=-1), [24, 24])
        # No target: nothing is covered, although 0 is what most of the label map holds.
        assert not covered[0, 1].any()
        # The third row of the lower cell: the first pixel of its third 2 x 2 block.
        np.testing.assert_array_equal(np.flatnonzero(covered[1, 1]), [16 + 8])

    def test_some_cells_are_a_part_of_all(self) -> None:
        all_cells, _ = self.cut()
        lower, is_target = self.cut(ops.convert_to_tensor(np.array([[1]], np.int32)))
        np.testing.assert_array_equal(lower, all_cells[..., 16:])
        np.testing.assert_array_equal(is_target, [[1, 0], [1, 1]])


def label_maps_of_two_levels() -> NDArray[np.uint8]:
    maps = np.zeros((1, LEVELS, LOW_RES, LOW_RES), np.uint8)
    maps[0, 0, 4:12, 4:12] = 1
    maps[0, 1, :20, :20] = 1
    return maps


class TestLoss:
    def outputs(self, logits: NDArray[np.float32], iou: Any) -> Any:
        return tensors({"logits": logits, "iou": np.array(iou, np.float32)})

    def targets(self, ids: list[list[int]], meant: list[int]) -> Any:
        return tensors(
            {
                "label_maps": label_maps_of_two_levels(),
                "target_ids": np.array([ids], np.uint8),
                "meant_levels": np.array([meant], np.int32),
            }
        )

    def test_equals_the_sum_of_its_parts(self) -> None:
        trainer = SceneTrainer(make_sam())
        rng = np.random.default_rng(0)
        logits = rng.normal(0, 2, (2, 4, LOW_RES**2)).astype(np.float32)
        predicted = rng.uniform(0, 1, (2, 4))
        # The second prompt means nothing and must not count.
        targets = self.targets([[1, 1, 0], [0, 0, 0]], meant=[1, 0])
        loss = float(trainer.compute_loss({}, targets, self.outputs(logits, predicted)))

        coverage, _ = cut_targets(targets)
        losses = as_arrays(10 * focal_losses(logits, coverage) + dice_losses(logits, coverage))[0]
        # Next to the best output's, a twentieth of all; the mask that is not meant weighs 0.35.
        per_target = 0.95 * losses[1:].min(axis=0)[:2] + 0.05 * losses[1:].mean(axis=0)[:2]
        best = np.average(per_target, weights=[0.35, 1.0])
        covered = as_arrays(coverage)[0, :2] > 0
        thresholded = logits[0] > 0
        ious = (thresholded[:, None] & covered).sum(-1) / (thresholded[:, None] | covered).sum(-1)
        score = np.mean((predicted[0] - ious[:, 1]) ** 2)
        assert loss == pytest.approx(best + 0.25 * losses[0, 1] + 4 * score, rel=1e-4)
        metrics = {metric.name: float(metric.result()) for metric in trainer.metrics}
        assert metrics["best_iou"] == pytest.approx(ious[1:].max(axis=0).mean(), abs=1e-5)
        top = ious[1:].max(axis=1)[predicted[0, 1:].argmax()]
        assert metrics["top_iou"] == pytest.approx(top, abs=1e-5)
        assert metrics["score_error"] == pytest.approx(score, abs=1e-5)

    def test_perfect_outputs_cost_nothing_and_wrong_ones_do(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(scene_trainer, "_SLACK", 0.0)  # or what fits another mask has a cost
        trainer = SceneTrainer(make_sam())
        targets = self.targets([[1, 1, 0]], meant=[1])
        coverage = as_arrays(cut_targets(targets)[0])[0]
        fine, coarse = (np.where(mask >= 0.5, 30.0, -30.0) for mask in coverage[:2])
        logits = np.stack([coarse, fine, coarse, -coarse])[None]
        # The coarse mask is meant.
        ious = [[1.0, fine[coarse > 0].clip(0, 1).mean(), 1.0, 0.0]]
        perfect = self.outputs(logits.astype(np.float32), ious)
        assert float(trainer.compute_loss({}, targets, perfect)) == pytest.approx(0, abs=0.01)
        swapped = self.outputs(logits[:, [3, 1, 2, 0]].astype(np.float32), ious)
        assert float(trainer.compute_loss({}, targets, swapped)) > 1.0

    def test_an_output_that_fits_nothing_has_a_small_loss_of_its_own(self) -> None:
        trainer = SceneTrainer(make_sam())
        targets = self.targets([[0, 1, 0]], meant=[1])
        coverage = as_arrays(cut_targets(targets)[0])[0]
        mask = np.where(coverage[1] >= 0.5, 30.0, -30.0).astype(np.float32)

        def loss(logits: list[NDArray[np.float32]], ious: list[float]) -> float:
            outputs = self.outputs(np.stack(logits)[None], [ious])
            return float(trainer.compute_loss({}, targets, outputs))

        assert loss([mask] * 4, [1.0] * 4) == pytest.approx(0, abs=0.01)
        # One wrong output of three costs its share of the slack, the single mask more.
        one_wrong = loss([mask, mask, mask, -mask], [1.0, 1.0, 1.0, 0.0])
        assert 1.0 < one_wrong < loss([-mask, mask, mask, mask], [0.0, 1.0, 1.0, 1.0])
        assert loss([-mask] * 4, [0.0] * 4) > 10 * one_wrong


class TestTraining:
    def test_outputs_are_all_four_masks_of_every_prompt(self, cache: SceneCache) -> None:
        trainer = SceneTrainer(make_sam())
        inputs, _ = batches_of(cache, VIEWS)[0]
        outputs = as_arrays(trainer(tensors(inputs)))
        assert outputs["logits"].shape == (6, 4, LOW_RES**2)
        assert outputs["iou"].shape == (6, 4)
        # The same as the model's own call for a click on the second image.
        click = next(i for i in range(3) if inputs["labels"][1, i, 0] == 1)
        points = (inputs["coords"][1:, click, :1], inputs["labels"][1:, click, :1])
        alone = as_arrays(trainer.sam({"image": inputs["image"][1:], "points": points}))
        cells = alone["low_res_logits"][0].reshape(3, GRID, 2, 2, GRID, 2, 2)
        cells = cells.transpose(0, 1, 4, 2, 5, 3, 6).reshape(3, -1)
        np.testing.assert_allclose(outputs["logits"][3 + click, 1:], cells, atol=1e-3)

    def test_masks_in_some_cells_are_those_of_the_whole(self, cache: SceneCache) -> None:
        trainer = SceneTrainer(make_sam())
        inputs, _ = batches_of(cache, VIEWS)[0]
        cells = np.array([[3, 7, 50], [0, 1, 63]], np.int32)
        some = as_arrays(trainer(tensors({**inputs, "cells": cells})))
        whole = as_arrays(trainer(tensors(inputs)))
        by_cell = whole["logits"].reshape(2, 3, 4, -1, 16)
        expected = [by_cell[i][:, :, cells[i]] for i in range(2)]
        np.testing.assert_allclose(
            some["logits"], np.concatenate(expected).reshape(6, 4, -1), atol=1e-3
        )
        np.testing.assert_allclose(some["iou"], whole["iou"], atol=1e-4)

    @pytest.mark.training
    def test_a_few_steps_reduce_the_loss_and_train_every_part(self, cache: SceneCache) -> None:
        keras.utils.set_random_seed(0)
        trainer = SceneTrainer(make_sam())
        before = [as_arrays(variable) for variable in trainer.variables]
        # Tracing takes longer than the few steps, and Adam longer than a model as small as this.
        trainer.compile(optimizer=keras.optimizers.SGD(0.05, clipnorm=1.0), run_eagerly=True)
        asked = ViewSettings(
            size=IMG_SIZE,
            label_size=LOW_RES,
            batch_size=2,
            prompts=3,
            cells=20,
            clicks=8,
            pixels=64,
            augment=False,
        )
        batches = batches_of(cache, asked, steps=4)
        history = trainer.fit(batches, epochs=2, shuffle=False, verbose=0).history
        assert history["loss"][-1] < 0.95 * history["loss"][0]
        assert set(history) == {"loss", "best_iou", "top_iou", "score_error", "group_iou"}
        unchanged = {
            variable.path.split("/", 2)[-1]
            for variable, values in zip(trainer.variables, before, strict=True)
            if (as_arrays(variable) == values).all()
        }
        # Unused (mask prompts), and of no effect on a softmax.
        without_effect = ("mask_downscaling", "k_proj/bias")
        # Fixed, and never drawn as a prompt (background clicks).
        assert {path for path in unchanged if not any(map(path.__contains__, without_effect))} == {
            "pe_layer/positional_encoding_gaussian_matrix",
            "point_embeddings_0",
        }
