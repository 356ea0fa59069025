"""Automatic mask generation against the reference, with the same weights of `tiny` in both."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Before anything that imports TensorFlow: PyTorch crashes when it is loaded after it.
from benchmarks.reference_amg import reference_point_predictor, run_reference_amg  # isort: skip
from benchmarks.reference_model import build_reference  # isort: skip

from amg_pipeline.amg.generator import AutomaticMaskGenerator
from amg_pipeline.assets import packaged_weights
from amg_pipeline.sam.weights import weights_sha256
from amg_pipeline.sam.weights.architecture import of_model
from amg_pipeline.sam.weights.variables import official_tensors
from benchmarks.mask_agreement import (
    MIN_IDENTICAL_SHARE,
    FoundMask,
    MaskAgreement,
    compare_masks,
    identical_share,
    with_undecided,
)
from benchmarks.our_amg import SETTINGS, run_our_amg, tiny_thresholds
from benchmarks.photos import amg_photos


@dataclass(frozen=True, slots=True, kw_only=True)
class AmgRow:
    """One image under one combination of settings."""

    settings: str
    image: str
    agreement: MaskAgreement


@dataclass(frozen=True, slots=True, kw_only=True)
class AmgParity:
    """What was found of all images."""

    weights: str
    weights_sha256: str
    thresholds: dict[str, float]
    points_per_side: int
    rows: list[AmgRow]

    @property
    def identical_shares(self) -> dict[str, float]:
        """Share of byte-identical masks, by settings."""
        return {
            name: identical_share(row.agreement for row in self.rows if row.settings == name)
            for name in SETTINGS
        }

    @property
    def faults(self) -> list[str]:
        """What is wrong apart from single rows."""
        faults = []
        # Of all settings together: one mask of some two hundred would decide over a single one.
        share = identical_share(row.agreement for row in self.rows)
        if share < MIN_IDENTICAL_SHARE:
            faults.append(f"{share:.2%} of RLEs are byte-identical, not {MIN_IDENTICAL_SHARE:.0%}")
        masks = sum(row.agreement.expected_masks for row in self.rows)
        if masks < 10 * len(self.rows):
            faults.append(f"{masks} masks on {len(self.rows)} images are too few to compare")
        return faults

    @property
    def passes(self) -> bool:
        """Whether every row passes and enough masks are identical."""
        return not self.faults and all(row.agreement.passes for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Give all numbers as a dictionary."""
        return {**asdict(self), "identical_shares": self.identical_shares, "passes": self.passes}


def compare_amg(
    *, weights: Path | None, points_per_side: int, thresholds: dict[str, float] | None = None
) -> AmgParity:
    """Run both on all images and settings.

    Args:
        weights: Weights of `tiny`; None for the packaged ones.
        points_per_side: Density of the grid.
        thresholds: `pred_iou_thresh` or `stability_score_thresh` in place of the model's own.

    Raises:
        FileNotFoundError: If there are no weights.
    """
    from amg_pipeline.sam import SAM

    source, shown = tiny_weights(weights)
    sam = SAM.from_variant("tiny", weights=source)
    reference = to_reference(sam)
    thresholds = tiny_thresholds() | (thresholds or {})
    rows: list[AmgRow] = []
    for name, settings in SETTINGS.items():
        complete = {"points_per_side": points_per_side, **thresholds, **settings}
        generator = AutomaticMaskGenerator(sam, output_mode="coco_rle", **complete)
        for image_name, image in amg_photos().items():
            found = run_our_amg(generator, image)
            expected = run_reference_amg(reference, image, complete)
            label = f"{image_name} {image.shape[1]} x {image.shape[0]}"
            agreement = _compare(
                reference,
                image,
                expected,
                found,
                min_region_area=settings["min_mask_region_area"],
            )
            rows.append(AmgRow(settings=name, image=label, agreement=agreement))
    return AmgParity(
        weights=shown,
        weights_sha256=weights_sha256("tiny", source),
        thresholds=thresholds,
        points_per_side=points_per_side,
        rows=rows,
    )


def tiny_weights(weights: Path | None) -> tuple[str, str]:
    """Choose the weights of `tiny`: their path, and a name that says nothing of this machine.

    Raises:
        FileNotFoundError: If none are given and none are packaged.
    """
    if weights is not None:
        return str(weights), weights.name
    packaged = packaged_weights("tiny")
    if packaged is None:
        raise FileNotFoundError("The package holds no weights of tiny; give --weights PATH")
    return packaged, "the packaged weights of tiny"


def to_reference(sam: Any) -> Any:
    """Give the reference's model the weights of ours."""
    tensors = {name: tensor.read_float32() for name, tensor in official_tensors(sam).items()}
    return build_reference(of_model(sam), tensors)


def _compare(
    reference: Any,
    image: NDArray[np.uint8],
    expected: list[FoundMask],
    found: list[FoundMask],
    *,
    min_region_area: int,
) -> MaskAgreement:
    predict = reference_point_predictor(reference)
    return compare_masks(
        expected,
        found,
        height=image.shape[0],
        width=image.shape[1],
        min_region_area=min_region_area,
        with_pixels=lambda mask: with_undecided([mask], image, predict)[0],
    )
