"""What the fingerprint depends on, and what not."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from amg_pipeline.config import (
    RunConfig,
    fingerprint,
    fingerprint_fields,
    load_config,
)

WEIGHTS_SHA256 = "ab" * 32


def fields_of(config: RunConfig, **options: str) -> dict[str, Any]:
    settings = {"weights_sha256": WEIGHTS_SHA256, "package_version": "0.1.0", **options}
    return fingerprint_fields(config, **settings)


def fingerprint_of(*overrides: str, **options: str) -> str:
    return fingerprint(fields_of(load_config(overrides=overrides), **options))


#: Another valid value of each setting that changes the output.
CHANGES = {
    "model.variant": "vit_b",
    "model.backend": "jax",
    "model.precision": "fast",
    "model.encoder_batch_size": 2,
    "model.intra_op_threads": 3,
    "amg.points_per_side": 16,
    "amg.points_per_batch": 32,
    "amg.pred_iou_thresh": 0.6,
    "amg.stability_score_thresh": 0.66,
    "amg.stability_score_offset": 2.0,
    "amg.box_nms_thresh": 0.5,
    "amg.crop_n_layers": 1,
    "amg.crop_nms_thresh": 0.5,
    "amg.crop_overlap_ratio": 0.5,
    "amg.crop_n_points_downscale_factor": 2,
    "amg.min_mask_region_area": 100,
    "amg.min_area": 5,
    "amg.max_area": 500,
    "amg.max_area_fraction": 0.5,
    "amg.nms_kind": "mask",
    "amg.region_of_interest": [0, 0, 5, 5],
    "amg.keep_candidates": True,
    "images.input": "/elsewhere",
    "images.column": "photo",
    "images.include": ["*.png"],
    "images.exclude": ["*.gif"],
    "images.limit": 5,
    "images.sample": 5,
    "images.sample_seed": 1,
    "images.exif_orientation": False,
    "images.max_pixels": 1000,
    "output.shard_size": 7,
}
#: Changing it takes a second setting, see `test_point_grids_change_the_fingerprint`.
CHANGED_TOGETHER = {"amg.point_grids"}
WITHOUT_EFFECT = {
    "model.weights": "/w.pth",
    "output.uri": "s3://elsewhere/out",
    "workers.workers": 9,
    "workers.gpus_per_worker": 0.5,
    "workers.decode_threads": 9,
    "workers.address": "ray://head:10001",
    "workers.image_timeout_seconds": 7.5,
    "workers.memory_limit_bytes": 2**31,
    "workers.price_per_hour": 1.5,
    "storage.endpoint_url": "http://127.0.0.1:9000",
    "storage.region": "eu-central-1",
    "storage.profile": "other",
    "storage.anonymous": True,
    "storage.connect_timeout_seconds": 1.5,
    "storage.read_timeout_seconds": 1.5,
    "storage.request_timeout_seconds": 1.5,
}


def test_tables_name_every_setting() -> None:
    def sections() -> dict[str, type[BaseModel]]:
        return {name: field.annotation for name, field in RunConfig.model_fields.items()}

    every = {
        f"{name}.{key}" for name, section in sections().items() for key in section.model_fields
    }

    assert CHANGES.keys() | CHANGED_TOGETHER | WITHOUT_EFFECT.keys() == every


@pytest.mark.parametrize(("name", "value"), list(CHANGES.items()), ids=list(CHANGES))
def test_setting_changes_the_fingerprint(name: str, value: object) -> None:
    before, after = load_config(), load_config(overrides=[f"{name}={json.dumps(value)}"])
    old, new = fields_of(before), fields_of(after)

    assert fingerprint(old) != fingerprint(new)
    changed = {key for key in old if old[key] != new[key]}
    # The model's own AMG defaults come with it.
    assert changed - {"amg.pred_iou_thresh", "amg.stability_score_thresh"} == {name} - {
        "amg.pred_iou_thresh",
        "amg.stability_score_thresh",
    }
    assert name in changed


@pytest.mark.parametrize(("name", "value"), list(WITHOUT_EFFECT.items()), ids=list(WITHOUT_EFFECT))
def test_setting_leaves_the_fingerprint_alone(name: str, value: object) -> None:
    assert fingerprint_of(f"{name}={json.dumps(value)}") == fingerprint_of()


def test_point_grids_change_the_fingerprint() -> None:
    one = fingerprint_of("amg.points_per_side=null", "amg.point_grids=[[[0.5, 0.5]]]")
    other = fingerprint_of("amg.points_per_side=null", "amg.point_grids=[[[0.5, 0.6]]]")

    assert len({one, other, fingerprint_of()}) == 3


def test_weights_and_minor_version_change_the_fingerprint() -> None:
    assert fingerprint_of() != fingerprint_of(weights_sha256="cd" * 32)
    assert fingerprint_of() != fingerprint_of(package_version="0.2.0")
    assert fingerprint_of() != fingerprint_of(package_version="1.1.0")
    assert fingerprint_of() == fingerprint_of(package_version="0.1.7")


def test_number_is_the_same_however_it_is_written() -> None:
    texts = ("0.5", "5.0e-1", "'0.5'", "0.50")

    assert len({fingerprint_of(f"amg.pred_iou_thresh={text}") for text in texts}) == 1


@given(seed=st.integers(0, 2**32))
def test_fingerprint_does_not_depend_on_the_order_of_keys(seed: int) -> None:
    fields = list(fields_of(load_config()).items())
    random.Random(seed).shuffle(fields)

    assert fingerprint(dict(fields)) == fingerprint_of()


def test_fingerprint_is_64_hex_digits_and_survives_json() -> None:
    fields = fields_of(load_config())

    assert fingerprint(json.loads(json.dumps(fields))) == fingerprint(fields)
    assert len(bytes.fromhex(fingerprint(fields))) == 32
