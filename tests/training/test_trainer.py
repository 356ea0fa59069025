from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.training.losses import dice_losses, focal_losses
from amg_pipeline.training.scene_cache import SceneCache, SceneCacheMeta, render_scenes
from amg_pipeline.training.trainer import SAMTrainer, SceneBatches, cut_targets
from tests.sam.small_sam import IMG_SIZE, LOW_RES, as_arrays, make_sam

# Keras warns of the mask prompts' convolutions, which this training never uses.
pytestmark = pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")

LEVELS = 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> SceneCache:
    folder = tmp_path_factory.mktemp("scenes")
    return render_scenes(folder, count=4, size=2 * IMG_SIZE, seed=0, processes=1)


def batches_of(cache: SceneCache, **changes: Any) -> SceneBatches:
    arguments = {"size": IMG_SIZE, "batch_size": 2, "prompts": 3, "steps": 2, "seed": 0}
    return SceneBatches(cache, **{**arguments, **changes})


def tensors(structure: Any) -> Any:
    return keras.tree.map_structure(ops.convert_to_tensor, structure)


class TestSceneBatches:
    def test_shapes_and_ranges(self, cache: SceneCache) -> None:
        inputs, targets = batches_of(cache)[0]
        assert {name: array.shape for name, array in {**inputs, **targets}.items()} == {
            "image": (2, IMG_SIZE, IMG_SIZE, 3),
            "coords": (2, 3, 2, 2),
            "labels": (2, 3, 2),
            "label_maps": (2, LEVELS, IMG_SIZE, IMG_SIZE),
            "target_ids": (2, 3, LEVELS),
        }
        assert inputs["image"].dtype == np.float32
        assert inputs["image"].min() >= 0
        assert inputs["image"].max() <= 255

    def test_seed_epoch_and_index_decide_everything(self, cache: SceneCache) -> None:
        first, again, other_epoch = batches_of(cache), batches_of(cache), batches_of(cache)
        other_epoch.epoch = 1
        flat = keras.tree.flatten
        for one, same in zip(flat(first[1]), flat(again[1]), strict=True):
            np.testing.assert_array_equal(one, same)
        images = [
            batches[index][0]["image"]
            for batches, index in [
                (first, 0),
                (first, 1),
                (other_epoch, 0),
                (batches_of(cache, seed=1), 0),
            ]
        ]
        for i in range(4):
            for j in range(i):
                assert (images[i] != images[j]).any()

    def test_without_augmentation_scenes_are_only_shrunk(self, cache: SceneCache) -> None:
        inputs, targets = batches_of(cache, augment=False, batch_size=8)[0]
        size = (IMG_SIZE, IMG_SIZE)
        shrunk = [
            np.asarray(Image.fromarray(scene).resize(size, Image.Resampling.BILINEAR))
            for scene in cache.images
        ]
        for image, label_maps in zip(inputs["image"], targets["label_maps"], strict=True):
            matches = [bool((image == scene).all()) for scene in shrunk]
            assert sum(matches) == 1
            which = matches.index(True)
            np.testing.assert_array_equal(label_maps, cache.label_maps[which][:, 1::2, 1::2])

    def test_pixels_and_labels_move_together(self) -> None:
        """A bright square that is a mask stays that mask, however it is turned and recoloured."""
        image = np.full((1, 128, 128, 3), 20, np.uint8)
        labels = np.zeros((1, LEVELS, 128, 128), np.uint8)
        image[:, 16:48, 70:120] = 220
        labels[:, 0, 16:48, 70:120] = 5
        cache = SceneCache(SceneCacheMeta(count=1, size=128, seed=0), image, labels)
        seen = set()
        for index in range(12):
            inputs, targets = batches_of(cache, batch_size=1, steps=12)[index]
            gray, mask = inputs["image"][0].mean(axis=-1), targets["label_maps"][0, 0] == 5
            if mask.any() and not mask.all():
                # The one row of pixels along the border may be mixed of both.
                bright = gray > (gray.min() + gray.max()) / 2
                assert (bright != mask).sum() <= 2 * IMG_SIZE
                assert (bright & mask).sum() > 0.8 * mask.sum()
                seen.add(mask.tobytes())
        assert len(seen) > 3

    def test_small_masks_can_be_left_out(self, cache: SceneCache) -> None:
        _, targets = batches_of(cache, augment=False, min_area=0.2)[0]
        label_maps = targets["label_maps"]
        assert (label_maps != batches_of(cache, augment=False)[0][1]["label_maps"]).any()
        for label_map in label_maps.reshape(-1, IMG_SIZE * IMG_SIZE):
            areas = np.bincount(label_map)[1:]
            assert (areas[areas > 0] >= 0.2 * IMG_SIZE**2).all()

    def test_scenes_of_the_models_own_size_are_taken_as_they_are(self, cache: SceneCache) -> None:
        batches = batches_of(cache, size=2 * IMG_SIZE, augment=False)
        inputs, _ = batches[0]
        assert len(batches) == 2
        for image in inputs["image"]:
            assert any((image == scene).all() for scene in cache.images)


class TestTargets:
    def test_coverage_is_cut_from_the_label_maps_by_prompt_and_level(self) -> None:
        label_maps = np.zeros((1, 2, 4, 4), np.uint8)
        label_maps[0, 0, :, :3] = 1
        label_maps[0, 1, 0, 0] = 2
        ids = np.array([[[1, 0], [1, 2]]], np.uint8)
        coverage, is_target = as_arrays(
            cut_targets(tensors({"label_maps": label_maps, "target_ids": ids}), (2, 2))
        )
        np.testing.assert_array_equal(is_target, [[1, 0], [1, 1]])
        np.testing.assert_array_equal(coverage[:, 0], [[1, 0.5, 1, 0.5]] * 2)
        # No target: nothing is covered, although 0 is what most of the label map holds.
        np.testing.assert_array_equal(coverage[0, 1], [0, 0, 0, 0])
        np.testing.assert_array_equal(coverage[1, 1], [0.25, 0, 0, 0])


def label_maps_of_two_levels() -> NDArray[np.uint8]:
    maps = np.zeros((1, LEVELS, IMG_SIZE, IMG_SIZE), np.uint8)
    maps[0, 0, 8:24, 8:24] = 1
    maps[0, 1, :40, :40] = 1
    return maps


class TestLoss:
    def outputs(self, logits: NDArray[np.float32], iou: Any) -> Any:
        return tensors({"logits": logits, "iou": np.array(iou, np.float32)})

    def targets(self, ids: list[list[int]]) -> Any:
        return tensors(
            {
                "label_maps": label_maps_of_two_levels(),
                "target_ids": np.array([ids], np.uint8),
            }
        )

    def test_equals_the_sum_of_its_parts(self) -> None:
        trainer = SAMTrainer(make_sam())
        rng = np.random.default_rng(0)
        logits = rng.normal(0, 2, (2, 4, LOW_RES, LOW_RES)).astype(np.float32)
        predicted = rng.uniform(0, 1, (2, 4))
        # The second prompt means nothing and must not count.
        targets = self.targets([[1, 1, 0], [0, 0, 0]])
        loss = float(trainer.compute_loss(y=targets, y_pred=self.outputs(logits, predicted)))

        coverage, _ = cut_targets(targets, (LOW_RES, LOW_RES))
        flat = logits.reshape(2, 4, -1)
        losses = as_arrays(10 * focal_losses(flat, coverage) + dice_losses(flat, coverage))[0]
        best = losses[1:].min(axis=0)[:2].mean()
        covered = as_arrays(coverage)[0, :2] >= 0.5
        thresholded = flat[0] > 0
        ious = (thresholded[:, None] & covered).sum(-1) / (thresholded[:, None] | covered).sum(-1)
        true_iou = np.array([ious[0, 1], *ious[1:].max(axis=1)])
        score = np.mean((predicted[0] - true_iou) ** 2)
        assert loss == pytest.approx(best + 0.25 * losses[0, 1] + score, rel=1e-4)
        metrics = {metric.name: float(metric.result()) for metric in trainer.metrics}
        assert metrics["best_iou"] == pytest.approx(ious[1:].max(axis=0).mean(), abs=1e-5)
        top = ious[1:].max(axis=1)[predicted[0, 1:].argmax()]
        assert metrics["top_iou"] == pytest.approx(top, abs=1e-5)
        assert metrics["score_error"] == pytest.approx(score, abs=1e-5)

    def test_perfect_outputs_cost_nothing_and_wrong_ones_do(self) -> None:
        trainer = SAMTrainer(make_sam())
        targets = self.targets([[1, 1, 0]])
        coverage = as_arrays(cut_targets(targets, (LOW_RES, LOW_RES))[0])[0]
        fine, coarse = (np.where(mask >= 0.5, 30.0, -30.0) for mask in coverage[:2])
        logits = np.stack([coarse, fine, coarse, -coarse]).reshape(1, 4, LOW_RES, LOW_RES)
        ious = [[1.0, 1.0, 1.0, 0.0]]
        perfect = self.outputs(logits.astype(np.float32), ious)
        assert float(trainer.compute_loss(y=targets, y_pred=perfect)) == pytest.approx(0, abs=0.01)
        swapped = self.outputs(logits[:, [3, 1, 2, 0]].astype(np.float32), ious)
        assert float(trainer.compute_loss(y=targets, y_pred=swapped)) > 1.0


class TestTraining:
    def test_outputs_are_all_four_masks_of_every_prompt(self, cache: SceneCache) -> None:
        trainer = SAMTrainer(make_sam())
        inputs, _ = batches_of(cache)[0]
        outputs = as_arrays(trainer(tensors(inputs)))
        assert outputs["logits"].shape == (6, 4, LOW_RES, LOW_RES)
        assert outputs["iou"].shape == (6, 4)
        # The same as the model's own call for a click on the second image.
        click = next(i for i in range(3) if inputs["labels"][1, i, 0] == 1)
        alone = as_arrays(
            trainer.sam(
                {
                    "image": inputs["image"][1:],
                    "points": (inputs["coords"][1:, click, :1], inputs["labels"][1:, click, :1]),
                }
            )
        )
        np.testing.assert_allclose(
            outputs["logits"][3 + click, 1:], alone["low_res_logits"][0], atol=2e-4
        )

    def test_a_few_steps_reduce_the_loss_and_train_every_part(self, cache: SceneCache) -> None:
        keras.utils.set_random_seed(0)
        trainer = SAMTrainer(make_sam())
        before = [as_arrays(variable) for variable in trainer.sam.variables]
        optimizer = keras.optimizers.Adam(3e-3)
        optimizer.build(trainer.trainable_variables)  # within the graph, it would be traced twice
        trainer.compile(optimizer=optimizer, jit_compile=False)
        batches = batches_of(cache, steps=12, augment=False)
        history = trainer.fit(batches, epochs=3, shuffle=False, verbose=0).history
        assert history["loss"][-1] < 0.7 * history["loss"][0]
        assert set(history) == {"loss", "best_iou", "top_iou", "score_error"}
        unchanged = {
            variable.path.split("/", 2)[-1]
            for variable, values in zip(trainer.sam.variables, before, strict=True)
            if (as_arrays(variable) == values).all()
        }
        # Fixed, never drawn as a prompt (background clicks), and unused (mask prompts).
        assert {path for path in unchanged if "mask_downscaling" not in path} == {
            "pe_layer/positional_encoding_gaussian_matrix",
            "point_embeddings_0",
        }
