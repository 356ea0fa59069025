"""Automatic mask generation: from an image to all masks that a segmenter finds in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.annotations import OutputMode, record_to_annotation
from amg_pipeline.amg.arguments import (
    check_image,
    check_output_mode,
    check_region,
    merge_positional,
    resolve_model,
)
from amg_pipeline.amg.boxes import is_box_near_crop_edge
from amg_pipeline.amg.candidates import Candidates, concatenate_candidates
from amg_pipeline.amg.crops import generate_crop_boxes
from amg_pipeline.amg.found_masks import FoundMasks
from amg_pipeline.amg.kept_masks import KeptMasks
from amg_pipeline.amg.packed_masks import crop_packed
from amg_pipeline.amg.point_grid import (
    RegionOfInterest,
    build_layer_point_grids,
    is_inside_region,
)
from amg_pipeline.amg.scores import (
    crop_scores,
    passes_predicted_iou,
    passes_stability,
    stability_scores,
)
from amg_pipeline.config import AmgSettings
from amg_pipeline.records import CropBox, MaskBatch, MaskRecord

#: Packed masks that one call of `Segmenter.measure` may return; bounds memory on huge images.
_MAX_PACKED_BYTES = 2**26


class AutomaticMaskGenerator:
    """Find all masks of an image by prompting a model with a grid of points.

    Names, meaning and positions of the settings are those of the reference's
    `SamAutomaticMaskGenerator`; `AmgSettings` lists them with the settings that are ours. What is
    not given comes from the model's own defaults.

    Args:
        model: A model with a method `segmenter`, or a `Segmenter`.
        *positional: Settings by position, in the order of `POSITIONAL_SETTINGS`.
        encoder_batch_size: Crops per call of the image encoder.
        **settings: Settings by name; `output_mode`, the form of the masks in `generate`:
            "binary_mask" (default), "uncompressed_rle" or "coco_rle"; `settings`, a named set
            such as "sa1b".

    Raises:
        ConfigError: If the model is of neither kind, or a setting is unknown or out of range.

    Source:
        Kirillov et al. 2023 (arXiv:2304.02643), appendix B. The reference fails where no mask is
        found in any crop; here the result is empty.
    """

    def __init__(
        self, model: object, *positional: Any, encoder_batch_size: int = 1, **settings: Any
    ) -> None:
        given = merge_positional(positional, settings)
        self._output_mode = check_output_mode(given.pop("output_mode", "binary_mask"))
        self._encoder_batch_size = encoder_batch_size
        self._segmenter, self._settings = resolve_model(
            model, given, encoder_batch_size=encoder_batch_size
        )
        self._point_grids = build_layer_point_grids(self._settings)

    @classmethod
    def from_settings(
        cls,
        model: object,
        settings: AmgSettings,
        *,
        output_mode: OutputMode = "binary_mask",
        encoder_batch_size: int = 1,
    ) -> Self:
        """Build a generator from resolved settings; the model's defaults play no part."""
        return cls(
            model,
            encoder_batch_size=encoder_batch_size,
            output_mode=output_mode,
            **settings.model_dump(),
        )

    @property
    def settings(self) -> AmgSettings:
        """The resolved settings."""
        return self._settings

    def generate(
        self, image: NDArray[np.uint8], *, region_of_interest: RegionOfInterest | None = None
    ) -> list[dict[str, Any]]:
        """Find the masks of an image.

        Args:
            image: Uint8 `(height, width, 3)`, RGB.
            region_of_interest: Corners XYXY in pixels or a bool mask `(height, width)`; points
                outside are not prompted. Replaces the region of the settings.

        Returns:
            One dictionary per mask with the reference's keys; see `record_to_annotation`.

        Raises:
            ConfigError: If the image or the region is of another kind.
        """
        records = self.generate_records(image, region_of_interest=region_of_interest)
        return [record_to_annotation(record, output_mode=self._output_mode) for record in records]

    def generate_records(
        self, image: NDArray[np.uint8], *, region_of_interest: RegionOfInterest | None = None
    ) -> tuple[MaskRecord, ...]:
        """Find the masks of an image; as `generate`, for use within the pipeline."""
        return self.find(image, region_of_interest=region_of_interest).to_records()

    def find(
        self, image: NDArray[np.uint8], *, region_of_interest: RegionOfInterest | None = None
    ) -> FoundMasks:
        """Do the model's part of `generate_records`; what it returns does the rest without it."""
        height, width = check_image(image)
        settings = self._settings
        region = check_region(region_of_interest, height=height, width=width)
        if region is None:
            region = settings.region_of_interest
        crops = generate_crop_boxes(
            height,
            width,
            crop_n_layers=settings.crop_n_layers,
            crop_overlap_ratio=settings.crop_overlap_ratio,
        )
        found = concatenate_candidates(
            [
                self._process_crop(embedding, points, crop, height=height, width=width)
                for crop, points, embedding in self._encode(image, self._prompts(crops, region))
            ]
        )
        if len(crops) > 1 and not settings.keep_candidates:
            scores = crop_scores(found.crops)
            found = found.suppress(scores, threshold=settings.crop_nms_thresh, settings=settings)
        return FoundMasks(found, settings, height=height, width=width)

    def _prompts(
        self, crops: Sequence[CropBox], region: RegionOfInterest | None
    ) -> list[tuple[CropBox, NDArray[np.float64]]]:
        """Pair crops with their points in the crop frame; a crop without points is left out."""
        prompts = []
        for crop in crops:
            points = self._point_grids[crop.layer] * np.array([crop.width, crop.height])
            inside = is_inside_region(points + np.array([crop.x0, crop.y0]), region)
            if inside.any():
                prompts.append((crop, points[inside]))
        return prompts

    def _encode(
        self, image: NDArray[np.uint8], prompts: Sequence[tuple[CropBox, NDArray[np.float64]]]
    ) -> Iterator[tuple[CropBox, NDArray[np.float64], Any]]:
        """Embed the crops a batch at a time, so that few embeddings are alive at once."""
        for start in range(0, len(prompts), self._encoder_batch_size):
            batch = prompts[start : start + self._encoder_batch_size]
            embeddings = self._segmenter.encode(
                [image[crop.y0 : crop.y1, crop.x0 : crop.x1] for crop, _ in batch]
            )
            for (crop, points), embedding in zip(batch, embeddings, strict=True):
                yield crop, points, embedding

    def _process_crop(
        self,
        embedding: Any,
        points: NDArray[np.float64],
        crop: CropBox,
        *,
        height: int,
        width: int,
    ) -> Candidates:
        """Find the masks of one crop, without duplicates unless wanted, in the image frame."""
        parts: list[Candidates] = []
        for start in range(0, len(points), self._settings.points_per_batch):
            batch_points = points[start : start + self._settings.points_per_batch]
            scored = self._segmenter.score(embedding, batch_points)
            passes = passes_predicted_iou(scored.predicted_iou, self._settings.pred_iou_thresh)
            prompts, outputs = np.nonzero(passes)
            # Nothing is made at full size but the masks that passed.
            for chunk in _chunks(len(prompts), crop):
                batch = self._segmenter.measure(
                    scored,
                    prompts[chunk],
                    outputs[chunk],
                    stability_score_offset=self._settings.stability_score_offset,
                )
                iou = scored.predicted_iou[prompts[chunk], outputs[chunk]]
                chunk_points = batch_points[prompts[chunk]]
                found = self._filter(batch, iou, chunk_points, crop, height=height, width=width)
                parts.append(found)
        found = concatenate_candidates(parts)
        if not self._settings.keep_candidates:
            found = found.suppress(
                found.predicted_iou,
                threshold=self._settings.box_nms_thresh,
                settings=self._settings,
            )
        return found.to_image_frame(crop)

    def _filter(
        self,
        batch: MaskBatch,
        predicted_iou: NDArray[np.float32],
        points: NDArray[np.float64],
        crop: CropBox,
        *,
        height: int,
        width: int,
    ) -> Candidates:
        """Keep the stable masks that their crop does not cut off."""
        stability = stability_scores(batch.stable_pixels, batch.possible_pixels)
        keeps = passes_stability(stability, self._settings.stability_score_thresh)
        keeps &= ~is_box_near_crop_edge(batch.boxes_xyxy, crop, height=height, width=width)
        kept = np.flatnonzero(keeps)
        return Candidates(
            predicted_iou=predicted_iou[kept],
            stability_score=stability[kept],
            boxes_xyxy=batch.boxes_xyxy[kept],
            points=points[kept],
            masks=KeptMasks(crop_packed(batch.packed[i], batch.boxes_xyxy[i]) for i in kept),
            crops=(crop,) * len(kept),
        )


def _chunks(num_masks: int, crop: CropBox) -> Iterator[slice]:
    bytes_per_mask = crop.width * -(-crop.height // 8)
    size = max(1, _MAX_PACKED_BYTES // bytes_per_mask)
    for start in range(0, num_masks, size):
        yield slice(start, start + size)
