from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam import SAM
from amg_pipeline.training import prompted_batches
from amg_pipeline.training.embedding_cache import EmbeddingCache
from amg_pipeline.training.labelled_views import LabelledViews
from amg_pipeline.training.prompted_batches import PromptedBatches
from amg_pipeline.training.sources.order import draw_order
from tests.sam.small_sam import as_arrays
from tests.training.labelled_images import Drawing, drawings, small_batches, small_sam


@pytest.fixture(scope="module")
def sam() -> SAM:
    return small_sam()


def images_of(batches: PromptedBatches, epoch: int = 0) -> list[Any]:
    batches.epoch = epoch
    return [batches[i][0]["image"] for i in range(len(batches))]


def test_shapes(sam: SAM) -> None:
    inputs, targets = small_batches(sam, batch_size=2, prompts=5, rounds=3)[0]
    assert {name: array.shape for name, array in inputs.items()} == {
        "image": (2, 32, 32, 3),
        "prompt_coords": (2, 5, 2, 2),
        "prompt_labels": (2, 5, 2),
        "draws": (2, 5, 2),
    }
    assert targets["masks"].shape == (2, 5, 8, 8)


def test_clicks_lie_in_their_masks(sam: SAM) -> None:
    batches = small_batches(sam, prompts=30, box_share=0.0, augmentation=None)
    inputs, targets = batches[0]
    assert (inputs["prompt_labels"] == [1, -1]).all()
    cells = np.floor((inputs["prompt_coords"][0, :, 0] + 0.5) / 4).astype(int)
    assert (targets["masks"][0, np.arange(30), cells[:, 1], cells[:, 0]] > 0).all()


def test_targets_say_how_far_a_pixel_is_covered(sam: SAM) -> None:
    _, targets = small_batches(sam, prompts=30, augmentation=None)[0]
    assert set(np.unique(targets["masks"])) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    # 12 pixels of 60 are 1.6 of 8.
    np.testing.assert_allclose(targets["masks"].sum(axis=(2, 3)), 1.6**2, atol=1.0)


def test_a_place_in_the_training_decides_everything(sam: SAM) -> None:
    first, again = images_of(small_batches(sam), 1), images_of(small_batches(sam), 1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(images_of(small_batches(sam), 0), first)
    resumed = small_batches(sam)
    resumed.skipped = 1
    np.testing.assert_array_equal(images_of(resumed, 1), first[1:])
    # What an epoch is does not matter.
    longer = images_of(small_batches(sam, steps=6))
    np.testing.assert_array_equal(longer[3:], first)


def note_images(batches: PromptedBatches) -> list[int]:
    """Let batches note which images they draw, instead of drawing them."""
    seen: list[int] = []
    batches._views.draw = lambda index, rng: (  # type: ignore[method-assign]
        seen.append(index) or ({}, np.zeros((0, 16, 16), np.uint8))
    )
    return seen


def test_every_image_comes_once_in_a_pass(sam: SAM) -> None:
    batches = small_batches(sam)
    seen = note_images(batches)
    for step in range(3):
        batches._draw(step + 3)
    assert sorted(seen) == [0, 1, 2]


def test_the_order_of_a_pass_is_drawn_once(sam: SAM, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(count: int, *, seed: int, epoch: int) -> Any:
        drawn.append(epoch)
        return draw_order(count, seed=seed, epoch=epoch)

    monkeypatch.setattr(prompted_batches, "draw_order", draw)
    batches = small_batches(sam, seed=7)
    seen = note_images(batches)
    for _ in range(2):
        for index in range(len(batches)):
            batches[index]
        batches.on_epoch_end()
    assert drawn == [0, 1]
    assert seen == [*draw_order(3, seed=7, epoch=0), *draw_order(3, seed=7, epoch=1)]


@pytest.mark.parametrize(
    ("arguments", "counted"),
    [
        ({}, 5),  # 3 of 8 views fill up the last batch
        ({"steps": 1}, 4),
        ({"steps": 4}, 15),
        ({"fixed": False}, 8),
    ],
)
def test_images_that_fill_up_a_fixed_batch_do_not_count(
    sam: SAM, arguments: dict[str, Any], counted: int
) -> None:
    views = LabelledViews(drawings(5), sam, augmentation=None)
    batches = PromptedBatches(views, batch_size=4, prompts=2, **arguments)
    masks = np.concatenate([batches[i][1]["masks"] for i in range(len(batches))])
    means_one = masks.any(axis=(2, 3)).all(axis=1)
    assert means_one.tolist() == [place < counted for place in range(len(masks))]


def test_validation_is_the_same_in_every_epoch(sam: SAM) -> None:
    batches = small_batches(sam, augmentation=None)
    first = [batches[i] for i in range(len(batches))]
    batches.on_epoch_end()
    for (inputs, _), (before, _) in zip((batches[i] for i in range(3)), first, strict=True):
        np.testing.assert_equal(inputs, before)


def test_without_augmentation_prompts_are_random_all_the_same(sam: SAM) -> None:
    batches = small_batches(sam, augmentation=None, fixed=False)
    first = batches[0][0]["prompt_coords"]
    batches.on_epoch_end()
    assert (batches[0][0]["prompt_coords"] != first).any()


def test_an_image_without_masks_has_prompts_that_mean_nothing(sam: SAM) -> None:
    views = LabelledViews([Drawing(rectangles=0)], sam)
    inputs, targets = PromptedBatches(views, batch_size=1)[0]
    assert (inputs["prompt_labels"] == -1).all()
    assert not targets["masks"].any()


def test_no_images_are_refused(sam: SAM) -> None:
    with pytest.raises(ConfigError, match="none"):
        LabelledViews([], sam)


def test_images_are_decoded_once_if_memory_allows(sam: SAM) -> None:
    for keep_bytes, reads in ((10**9, 1), (0, 3)):
        image = Drawing()
        views = LabelledViews([image], sam, keep_bytes=keep_bytes)
        drawn = [views.draw(0, np.random.default_rng(1)) for _ in range(3)]
        assert image.reads == reads
        np.testing.assert_equal(drawn[0], drawn[2])


def test_cached_embeddings_are_those_of_the_views(sam: SAM) -> None:
    views = LabelledViews(drawings(3), sam)
    cache = EmbeddingCache(sam, views, views_per_image=2, seed=5)
    assert len(cache) == 3
    expected = [views.draw_whole(2), views.draw(2, np.random.default_rng((5, 2, 1)))]
    found = [cache.draw(2, np.random.default_rng(i)) for i in range(8)]
    seen = set()
    for inputs, masks in found:
        (place,) = (i for i in (0, 1) if np.array_equal(masks, expected[i][1]))
        seen.add(place)
        pixels = sam.preprocess(expected[place][0]["image"][None])
        np.testing.assert_allclose(
            inputs["image_embedding"], as_arrays(sam.image_encoder(pixels))[0], atol=1e-4
        )
    assert seen == {0, 1}
