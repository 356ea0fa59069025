"""The packaged model finds the masks that the reference finds with the same weights.

The expected masks come from `tests/reference/make_tiny_goldens.py`. The two differ in the order of
float32 sums, so a pixel whose logit lies at the threshold may fall on either side.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.amg.generator import AutomaticMaskGenerator
from amg_pipeline.assets import packaged_weights
from amg_pipeline.sam.weights import weights_sha256
from benchmarks.mask_agreement import (
    MIN_IDENTICAL_SHARE,
    FoundMask,
    MaskAgreement,
    compare_masks,
    identical_share,
)
from benchmarks.our_amg import SETTINGS, run_our_amg, tiny_thresholds
from benchmarks.photos import golden_photos

GOLDENS = Path(__file__).parents[1] / "reference" / "tiny_goldens.json.gz"
PARITY = Path(__file__).parents[2] / "benchmarks" / "results" / "parity.json"
MAKE_AGAIN = "make the goldens with tests/reference/make_tiny_goldens.py"


@pytest.fixture(scope="module")
def goldens() -> dict[str, Any]:
    if packaged_weights("tiny") is None:
        pytest.fail("The package holds no weights of tiny: amg_pipeline/assets/tiny.safetensors")
    if not GOLDENS.is_file():
        pytest.fail(f"There is no {GOLDENS.name}: {MAKE_AGAIN}")
    document: dict[str, Any] = json.loads(gzip.decompress(GOLDENS.read_bytes()))
    return document


@pytest.fixture(scope="module")
def agreements(goldens: dict[str, Any]) -> dict[str, dict[str, MaskAgreement]]:
    """What differs, by settings and image."""
    from amg_pipeline.sam import SAM

    sam = SAM.from_variant("tiny")
    photos = golden_photos()
    found: dict[str, dict[str, MaskAgreement]] = {}
    for name, settings in SETTINGS.items():
        generator = AutomaticMaskGenerator(
            sam,
            output_mode="coco_rle",
            points_per_side=goldens["points_per_side"],
            **goldens["thresholds"],
            **settings,
        )
        found[name] = {
            photo_name: compare_masks(
                [FoundMask.from_json(mask) for mask in goldens["masks"][f"{name}|{photo_name}"]],
                run_our_amg(generator, photo),
                height=photo.shape[0],
                width=photo.shape[1],
                min_region_area=settings["min_mask_region_area"],
            )
            for photo_name, photo in photos.items()
        }
    return found


def test_goldens_are_of_the_packaged_weights_and_thresholds(goldens):
    assert goldens["weights_sha256"] == weights_sha256("tiny", None), MAKE_AGAIN
    assert goldens["thresholds"] == tiny_thresholds(), MAKE_AGAIN


def test_published_parity_is_of_the_packaged_weights_and_thresholds():
    published = json.loads(PARITY.read_text())["amg"]
    assert published["weights_sha256"] == weights_sha256("tiny", None), "run make parity"
    assert published["thresholds"] == tiny_thresholds(), "run make parity"
    assert published["passes"]


def test_images_are_decoded_and_resized_as_when_the_goldens_were_made(goldens):
    assert {
        name: hashlib.sha256(photo.tobytes()).hexdigest() for name, photo in golden_photos().items()
    } == goldens["pixels_sha256"]


@pytest.mark.parametrize("name", SETTINGS)
def test_masks_scores_and_order_are_the_references(name, agreements):
    faults = {image: found for image, found in agreements[name].items() if not found.passes}
    assert not faults


def test_nearly_all_masks_are_the_references_byte_for_byte(agreements):
    found = [agreement for name in SETTINGS for agreement in agreements[name].values()]
    assert identical_share(found) >= MIN_IDENTICAL_SHARE


def test_goldens_are_worth_comparing(goldens):
    photos = golden_photos()
    assert len(photos) >= 8
    for name in SETTINGS:
        counts = [len(goldens["masks"][f"{name}|{photo_name}"]) for photo_name in photos]
        assert sum(counts) >= 10 * len(photos), counts
    assert GOLDENS.stat().st_size < 400_000
