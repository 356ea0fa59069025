from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import amg_pipeline.amg.generator as generator_module
from amg_pipeline.amg.generator import AutomaticMaskGenerator
from amg_pipeline.amg.rle import decode_mask
from amg_pipeline.config import AmgSettings
from amg_pipeline.errors import ConfigError
from tests.fakes import DiscModel, DiscSegmenter, Shape, coordinate_image

DISC = Shape("disc", 60.0, 50.0, 30.0, 30.0, drift=0.05)
BAR = Shape("rectangle", 130.0, 90.0, 25.0, 15.0, score=0.96)
IMAGE = coordinate_image(130, 180)


def generate(shapes: list[Shape], image: np.ndarray = IMAGE, **settings: Any) -> list[dict]:
    settings = {"points_per_side": 10, "pred_iou_thresh": 0.85, **settings}
    return AutomaticMaskGenerator(DiscSegmenter(shapes), **settings).generate(image)


def test_masks_of_a_scene_are_found_once_each():
    found = generate([DISC, BAR])
    # Thing and group of both shapes; their parts are unstable.
    assert len(found) == 4
    assert [a["predicted_iou"] for a in found] == sorted(
        (a["predicted_iou"] for a in found), reverse=True
    )
    thing = next(a for a in found if a["bbox"] == [105, 75, 49, 29])
    assert thing["area"] == 50 * 30 == thing["segmentation"].sum()
    assert thing["crop_box"] == [0, 0, 180, 130]


def test_records_agree_with_annotations():
    generator = AutomaticMaskGenerator(DiscSegmenter([DISC, BAR]), points_per_side=10)
    records = generator.generate_records(IMAGE)
    annotations = generator.generate(IMAGE)
    assert len(records) == len(annotations) > 0
    for record, annotation in zip(records, annotations, strict=True):
        np.testing.assert_array_equal(decode_mask(record.rle), annotation["segmentation"])
        assert [list(record.point_coords)] == annotation["point_coords"]
        assert record.predicted_iou == annotation["predicted_iou"]


def test_points_come_in_batches_and_only_good_scores_are_measured():
    segmenter = DiscSegmenter([DISC])
    AutomaticMaskGenerator(
        segmenter, points_per_side=5, points_per_batch=8, pred_iou_thresh=0.92
    ).generate(IMAGE)
    assert segmenter.num_scored == [8, 8, 8, 1]
    # Only the best output of one point exceeds the threshold; other batches are not measured.
    assert segmenter.num_measured == [1]


def test_nothing_found_in_any_crop_gives_an_empty_list():
    settings = {"crop_n_layers": 1, "min_mask_region_area": 50, "pred_iou_thresh": 0.99}
    for kind in ("box", "mask"):
        assert generate([DISC], nms_kind=kind, **settings) == []


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3)])
def test_tiny_and_thin_images_are_images(size: tuple[int, int]):
    scene = [Shape("rectangle", 0.0, 0.0, 500.0, 500.0)]
    found = generate(
        scene, coordinate_image(*size), crop_n_layers=2, pred_iou_thresh=0.5, points_per_side=4
    )
    assert found[0]["segmentation"].shape == size
    assert all(a["area"] == a["segmentation"].sum() for a in found)


def test_encoder_gets_crops_in_batches_and_order():
    model = DiscModel([DISC])
    batched = AutomaticMaskGenerator(model, 8, crop_n_layers=1, encoder_batch_size=3)
    (segmenter,) = model.made
    one_by_one = AutomaticMaskGenerator(DiscSegmenter([DISC]), 8, crop_n_layers=1)
    calls: list[int] = []
    encode = segmenter.encode

    def counted(crops: list) -> list:
        calls.append(len(crops))
        return encode(crops)

    segmenter.encode = counted
    assert batched.generate_records(IMAGE)[0].box_xyxy == (
        one_by_one.generate_records(IMAGE)[0].box_xyxy
    )
    assert calls == [3, 2]
    assert [(e.x0, e.y0) for e in segmenter.encoded] == [(0, 0), (0, 0), (0, 43), (68, 0), (68, 43)]


def test_huge_masks_are_measured_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch):
    segmenter = DiscSegmenter([DISC, BAR])
    generator = AutomaticMaskGenerator(segmenter, points_per_side=10, output_mode="coco_rle")
    at_once = generator.generate(IMAGE)
    monkeypatch.setattr(generator_module, "_MAX_PACKED_BYTES", 2 * 180 * 17)
    segmenter.num_measured.clear()
    assert generator.generate(IMAGE) == at_once
    assert max(segmenter.num_measured) == 2


def test_box_of_interest_removes_points_and_nothing_else():
    segmenter = DiscSegmenter([DISC, BAR])
    generator = AutomaticMaskGenerator(
        segmenter,
        points_per_side=10,
        pred_iou_thresh=0.85,
        crop_n_layers=1,
        region_of_interest=(100, 70, 160, 110),
    )
    found = generator.generate(IMAGE)
    # The group's mask reaches beyond the region, and stays whole.
    assert any(a["bbox"][0] < 100 for a in found)
    for annotation in found:
        ((x, y),) = annotation["point_coords"]
        assert 100 <= x < 160
        assert 70 <= y < 110
    # The crop at the top left ends before the region begins; it is not even encoded.
    assert (0, 0, 112, 87) in {(e.x0, e.y0, e.width, e.height) for e in segmenter.encoded}
    segmenter.encoded.clear()
    generator.generate(IMAGE, region_of_interest=(150, 100, 180, 130))
    assert [(e.x0, e.y0) for e in segmenter.encoded] == [(0, 0), (68, 43)]


def test_mask_of_interest_replaces_the_box_of_the_settings():
    region = np.zeros((130, 180), bool)
    region[30:70, 40:80] = True
    generator = AutomaticMaskGenerator(
        DiscSegmenter([DISC, BAR]), points_per_side=10, region_of_interest=(100, 70, 160, 110)
    )
    found = generator.generate(IMAGE, region_of_interest=region)
    assert found
    for annotation in found:
        ((x, y),) = annotation["point_coords"]
        assert region[int(y), int(x)]


def test_region_without_points_gives_no_masks_and_no_encoding():
    segmenter = DiscSegmenter([DISC])
    generator = AutomaticMaskGenerator(segmenter, points_per_side=10)
    assert generator.generate(IMAGE, region_of_interest=(0, 0, 1, 1)) == []
    assert segmenter.encoded == []


def test_areas_limit_final_masks():
    areas = sorted(a["area"] for a in generate([DISC, BAR]))
    smallest, largest = areas[0], areas[-1]

    def found(**limits: Any) -> list[int]:
        return sorted(a["area"] for a in generate([DISC, BAR], **limits))

    assert found(min_area=smallest, max_area=largest) == areas
    assert found(min_area=smallest + 1) == [a for a in areas if a > smallest]
    assert found(max_area=largest - 1) == [a for a in areas if a < largest]
    # At least the fraction is dropped; a fraction of 1 keeps even a full mask.
    assert found(max_area_fraction=largest / (130 * 180)) == areas[:-1]


def test_area_fraction_of_one_keeps_a_mask_of_the_whole_image():
    whole = [Shape("rectangle", 90.0, 65.0, 400.0, 400.0)]
    assert [a["area"] for a in generate(whole)] == [130 * 180]
    assert generate(whole, max_area_fraction=0.95) == []


def test_areas_act_after_suppression():
    # The large masks win over the smaller ones inside, and are then dropped themselves.
    outer = Shape("rectangle", 90.0, 65.0, 60.0, 40.0, score=0.99)
    kept = generate([outer], box_nms_thresh=0.2)
    assert [a["area"] for a in kept] == [120 * 80]
    assert generate([outer], box_nms_thresh=0.2, max_area=120 * 80 - 1) == []


def test_mask_suppression_keeps_what_only_boxes_confuse():
    spot = {"score": 0.97, "islands": ((150.0, 110.0, 4.0),)}
    scene = [Shape("rectangle", 50.0, 40.0, 24.0, 24.0, **spot)]
    num_by_box = len(generate(scene))
    num_by_mask = len(generate(scene, nms_kind="mask"))
    # The far island gives part and thing nearly the same box.
    assert num_by_mask > num_by_box


def test_smaller_crops_win_between_crops():
    small = Shape("disc", 40.0, 100.0, 14.0, 12.0, drift=0.0)
    found = generate([small], crop_n_layers=1)
    assert found
    assert all(a["crop_box"] != [0, 0, 180, 130] for a in found if a["area"] < 1000)


def test_settings_by_position_by_name_and_resolved_give_the_same():
    model = DiscSegmenter([DISC, BAR])
    by_position = AutomaticMaskGenerator(
        model, 10, 64, 0.9, 0.9, 1.0, 0.6, 1, 0.6, 0.3, 2, None, 20, "coco_rle"
    )
    settings = AmgSettings(
        points_per_side=10,
        pred_iou_thresh=0.9,
        stability_score_thresh=0.9,
        box_nms_thresh=0.6,
        crop_n_layers=1,
        crop_nms_thresh=0.6,
        crop_overlap_ratio=0.3,
        crop_n_points_downscale_factor=2,
        min_mask_region_area=20,
    )
    resolved = AutomaticMaskGenerator.from_settings(model, settings, output_mode="coco_rle")
    assert by_position.settings == resolved.settings == settings
    assert by_position.generate(IMAGE) == resolved.generate(IMAGE) != []


def test_resolved_settings_are_not_overlaid_with_the_models_defaults():
    model = DiscSegmenter([], variant="tiny")
    assert AutomaticMaskGenerator.from_settings(model, AmgSettings()).settings == AmgSettings()
    assert AutomaticMaskGenerator(model).settings != AmgSettings()


def test_named_settings_are_accepted():
    generator = AutomaticMaskGenerator(DiscSegmenter([]), settings="sa1b")
    assert generator.settings.crop_n_layers == 2
    assert generator.settings.max_area_fraction == 0.95


def test_unknown_setting_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"Did you mean amg\.points_per_side"):
        AutomaticMaskGenerator(DiscSegmenter([]), points_per_sides=8)


def test_images_are_checked():
    with pytest.raises(ConfigError, match="float32"):
        generate([DISC], IMAGE.astype(np.float32))


def test_masks_do_not_depend_on_batch_sizes():
    found = [generate([DISC, BAR], points_per_batch=n, output_mode="coco_rle") for n in (1, 7, 64)]
    assert found[0] == found[1] == found[2]


def test_shapes_of_the_fake_are_plain_data():
    # The golden cases are stored as JSON.
    assert Shape(**dataclasses.asdict(DISC)) == DISC


def test_candidates_are_all_that_passed_the_scores_of_every_crop():
    settings = {"crop_n_layers": 1, "min_area": 10**6, "min_mask_region_area": 50}
    found = generate([DISC, BAR], **settings, keep_candidates=True)
    kept = generate([DISC, BAR], crop_n_layers=1)
    assert len(found) > 3 * len(kept)
    assert len({tuple(a["crop_box"]) for a in found}) > 1
    segments = [a["segmentation"].tobytes() for a in found]
    assert all(a["segmentation"].tobytes() in segments for a in kept)
