from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.amg.segmenter import Segmenter
from amg_pipeline.records import MaskBatch
from amg_pipeline.sam import SAM, segmenter
from amg_pipeline.sam.segmenter import SamScoredPrompts, SamSegmenter
from tests.sam.plain_resize import two_resizes
from tests.sam.small_sam import IMG_SIZE, as_arrays, make_sam, random_image

POINTS = np.array([[30.0, 20.0], [5.5, 44.25], [0.0, 0.0], [78.0, 3.0], [50.0, 30.0]])
#: Which masks of the five prompts are measured: not in order, some prompts twice, one never.
PROMPT_INDICES = np.array([4, 0, 0, 2, 2, 2, 4, 1, 1])
MASK_INDICES = np.array([1, 2, 0, 0, 1, 2, 0, 0, 2])
OFFSET = 0.7


@pytest.fixture(scope="module", params=[8, 1], ids=["dense", "low-rank"])
def sam(request: pytest.FixtureRequest) -> SAM:
    """A small SAM for either form of the image that prompts share."""
    made = make_sam(decoder_heads=request.param)
    assert made.mask_decoder.transformer.is_low_rank(7) == (request.param == 1)
    return made


@pytest.fixture(scope="module")
def runner(sam: SAM) -> SamSegmenter:
    return sam.segmenter(points_per_batch=6)


def scored(runner: SamSegmenter, image: NDArray[np.uint8]) -> SamScoredPrompts:
    return runner.score(runner.encode([image])[0], POINTS)


def call(sam: SAM, image: NDArray[np.uint8]) -> dict[str, Any]:
    """Ask the model itself the same points, one per prompt."""
    labels = np.ones((len(POINTS), 1))
    outputs: dict[str, Any] = as_arrays(
        sam({"image": image[None], "points": (POINTS[:, None], labels)})
    )
    return outputs


def dense_logits(sam: SAM, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Give the full-size logits `(M, H, W)` of the chosen masks, by plain resizes."""
    height, width = image.shape[:2]
    scale = IMG_SIZE / max(height, width)
    input_hw = (int(height * scale + 0.5), int(width * scale + 0.5))
    logits = two_resizes(call(sam, image)["low_res_logits"], IMG_SIZE, input_hw, (height, width))
    return logits[PROMPT_INDICES, MASK_INDICES]


def unpacked(batch: MaskBatch) -> NDArray[np.bool_]:
    bits = np.unpackbits(batch.packed, axis=2).astype(bool)  # (M, W, 8 * bytes)
    assert not bits[:, :, batch.height :].any()
    return bits[:, :, : batch.height].transpose(0, 2, 1)


def assert_measures(batch: MaskBatch, logits: NDArray[np.float64]) -> None:
    """Compare with full-size logits; pixels within rounding of a threshold may fall either way."""
    masks = unpacked(batch)
    assert masks.shape == logits.shape
    clear = np.abs(logits) > 1e-3
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(masks[clear], (logits > 0)[clear])
    for counts, threshold in [(batch.stable_pixels, OFFSET), (batch.possible_pixels, -OFFSET)]:
        above = (logits > threshold).sum(axis=(1, 2))
        unclear = (np.abs(logits - threshold) <= 1e-3).sum(axis=(1, 2))
        assert (np.abs(counts - above) <= unclear).all()
    for mask, box in zip(masks, batch.boxes_xyxy, strict=True):
        y, x = np.nonzero(mask)
        expected = [x.min(), y.min(), x.max(), y.max()] if len(x) else [0, 0, 0, 0]
        np.testing.assert_array_equal(box, expected)


def test_it_is_what_the_generator_expects(runner: SamSegmenter) -> None:
    assert isinstance(runner, Segmenter)
    assert runner.variant is None
    named = make_sam(variant="mine").segmenter(points_per_batch=2)
    assert named.variant == "mine"


@pytest.mark.parametrize("size", [(48, 80), (80, 48), (64, 64), (20, 31)])
def test_scores_are_the_models_own(sam: SAM, runner: SamSegmenter, size: tuple[int, int]) -> None:
    image = random_image(*size)[0]
    scores = scored(runner, image).predicted_iou
    assert scores.dtype == np.float32
    assert scores.shape == (5, 3)
    np.testing.assert_allclose(scores, call(sam, image)["iou_predictions"], atol=2e-4)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param((48, 80), id="whole-bytes"),
        pytest.param((45, 77), id="odd"),
        pytest.param((1, 90), id="one-row"),
        pytest.param((90, 1), id="one-column"),
    ],
)
def test_measure_equals_a_dense_evaluation(
    sam: SAM, runner: SamSegmenter, size: tuple[int, int]
) -> None:
    image = random_image(*size)[0]
    batch = runner.measure(
        scored(runner, image), PROMPT_INDICES, MASK_INDICES, stability_score_offset=OFFSET
    )
    assert (batch.height, batch.width) == size
    assert batch.packed.shape == (9, size[1], -(-size[0] // 8))
    assert batch.stable_pixels.dtype == batch.possible_pixels.dtype == np.int64
    assert_measures(batch, dense_logits(sam, image))


@pytest.mark.parametrize(
    ("grid", "part"), [(64, (4, 8)), (63, (3, 7)), (37, (1, 1)), (24, (4, 8)), (8, (4, 8))]
)
def test_parts_are_as_large_as_divides_the_grid(grid: int, part: tuple[int, int]) -> None:
    assert segmenter._parts_of((grid, grid), in_turns=True).part == part
    assert segmenter._parts_of((grid, grid), in_turns=False).part == (grid, grid)


@pytest.mark.parametrize("size", [(33, 90), (90, 33)])
def test_the_frames_padding_is_never_upscaled(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "_PART_OF_XLA", (1, 1))
    sam = make_sam(decoder_heads=1)
    runner = SamSegmenter(sam, points_per_batch=6)
    made = []
    make_logits = runner._make_logits
    runner._make_logits = lambda *inputs: made.append(make_logits(*inputs)) or made[-1]
    image = random_image(*size)[0]
    scores = scored(runner, image)
    batch = runner.measure(scores, PROMPT_INDICES, MASK_INDICES, stability_score_offset=OFFSET)
    assert_measures(batch, dense_logits(sam, image))
    for logits in as_arrays(made):
        padding = logits[:, 12:] if size[0] < size[1] else logits[:, :, 12:]
        assert padding.size
        assert not padding.any()


def test_calls_and_threads_change_nothing(sam: SAM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five prompts in calls of four at the most, in one thread and in several."""
    monkeypatch.setattr(segmenter, "_PROMPTS_OF_A_CALL", 4)
    monkeypatch.setattr(segmenter, "_PROMPTS_UPSCALED", 2)
    image = random_image(48, 80)[0]
    found = []
    for threads in (1, 3):
        runner = SamSegmenter(sam, points_per_batch=6, threads=threads)
        scores = scored(runner, image)
        assert len(scores.states) == 2
        batch = runner.measure(scores, PROMPT_INDICES, MASK_INDICES, stability_score_offset=OFFSET)
        found.append((scores.predicted_iou, batch.packed, batch.stable_pixels, batch.boxes_xyxy))
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)
    np.testing.assert_allclose(found[0][0], call(sam, image)["iou_predictions"], atol=2e-4)
    assert_measures(batch, dense_logits(sam, image))


def test_mask_threshold_of_the_model_is_used(sam: SAM, runner: SamSegmenter) -> None:
    moved = SAM(sam.image_encoder, sam.prompt_encoder, sam.mask_decoder, mask_threshold=1.0)
    image = random_image(20, 31)[0]
    other = moved.segmenter(points_per_batch=6)
    batch = other.measure(
        scored(other, image), PROMPT_INDICES, MASK_INDICES, stability_score_offset=OFFSET
    )
    assert_measures(batch, dense_logits(sam, image) - 1.0)


def test_crops_are_encoded_in_padded_batches_in_their_order(sam: SAM) -> None:
    crops = [random_image(20 + i, 31, seed=i)[0] for i in range(3)]
    runner = sam.segmenter(points_per_batch=6, encoder_batch_size=2)
    embeddings = runner.encode(crops)
    assert [embedding.crop_hw for embedding in embeddings] == [(20, 31), (21, 31), (22, 31)]
    assert [embedding.input_hw for embedding in embeddings] == [(41, 64), (43, 64), (45, 64)]
    for crop, embedding in zip(crops, embeddings, strict=True):
        expected = as_arrays(sam.image_encoder(sam.preprocess(crop[None])))
        np.testing.assert_allclose(as_arrays(embedding.features), expected, atol=2e-4)
    assert runner.encode([]) == []


def test_crops_are_resized_exactly_as_the_model_resizes_them(sam: SAM) -> None:
    for size in [(48, 80), (99, 31), (64, 40)]:
        crop = random_image(*size)[0]
        frame = np.zeros((IMG_SIZE, IMG_SIZE, 3), np.float32)
        height, width = sam.segmenter(points_per_batch=1)._fill_model_frame(frame, crop)
        resized = np.asarray(Image.fromarray(crop).resize((width, height), Image.BILINEAR))
        levels = frame[:height, :width] * np.array(sam.pixel_std) + np.array(sam.pixel_mean)
        np.testing.assert_allclose(levels, resized, atol=1e-3)
        np.testing.assert_allclose(frame, as_arrays(sam.preprocess(crop[None]))[0], atol=1e-6)


def test_a_batch_of_any_length_up_to_the_limit_gives_the_same_scores(
    runner: SamSegmenter,
) -> None:
    embedding = runner.encode([random_image(20, 31)[0]])[0]
    whole = runner.score(embedding, POINTS).predicted_iou
    for count in (1, 3):
        part = runner.score(embedding, POINTS[:count]).predicted_iou
        np.testing.assert_array_equal(part, whole[:count])


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_or_too_many_points_are_refused(runner: SamSegmenter, count: int) -> None:
    embedding = runner.encode([random_image(20, 31)[0]])[0]
    with pytest.raises(ValueError, match=rf"1 to 6 points.*Received: {count}"):
        runner.score(embedding, np.zeros((count, 2)))


@pytest.mark.parametrize(
    ("policy", "decoder_policy", "decoder_heads"),
    [
        ("mixed_bfloat16", None, 8),
        ("mixed_float16", None, 8),
        pytest.param("mixed_bfloat16", "float32", 1, id="as-on-a-processor"),
    ],
)
def test_half_precision_finds_nearly_the_same(
    policy: str, decoder_policy: str | None, decoder_heads: int
) -> None:
    """`--precision fast`: its steps are called, not its layers, which would cast what they get."""
    image = random_image(48, 80)[0]
    full = make_sam(decoder_heads=decoder_heads).segmenter(points_per_batch=6)
    half = make_sam(
        dtype=policy, decoder_dtype=decoder_policy, decoder_heads=decoder_heads
    ).segmenter(points_per_batch=6)
    expected, found = scored(full, image), scored(half, image)
    spread = np.ptp(expected.predicted_iou)
    assert np.abs(found.predicted_iou - expected.predicted_iou).max() < 0.1 * spread
    masks, same = (
        unpacked(runner.measure(part, PROMPT_INDICES, MASK_INDICES, stability_score_offset=OFFSET))
        for runner, part in ((full, expected), (half, found))
    )
    assert (masks != same).mean() < 0.05
