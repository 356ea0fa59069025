"""What is left to do for an image once the model has done its part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from amg_pipeline.amg.candidates import Candidates
from amg_pipeline.amg.regions import remove_small_regions
from amg_pipeline.amg.rle import encode_packed
from amg_pipeline.amg.scores import passes_areas
from amg_pipeline.config import AmgSettings
from amg_pipeline.records import MaskRecord


@dataclass(frozen=True, slots=True)
class FoundMasks:
    """The masks that a model found in an image; neither the model nor the pixels are needed more.

    Attributes:
        candidates: The masks, in the image frame, without duplicates unless they are wanted.
        settings: How they are cleaned and chosen.
        height: Rows of the image.
        width: Columns of the image.
    """

    candidates: Candidates
    settings: AmgSettings
    height: int
    width: int

    def to_records(self) -> tuple[MaskRecord, ...]:
        """Clean the masks, encode them, and leave out those of unwanted areas.

        Candidates are encoded as they are.
        """
        found = self.candidates
        if self.settings.keep_candidates:
            return tuple(self._encode(found))
        if self.settings.min_mask_region_area > 0:
            found = remove_small_regions(
                found, settings=self.settings, height=self.height, width=self.width
            )
        records = tuple(self._encode(found))
        areas = np.array([record.rle.area for record in records], np.int64)
        passes = passes_areas(areas, self.settings, image_area=self.height * self.width)
        return tuple(records[i] for i in np.flatnonzero(passes))

    def _encode(self, found: Candidates) -> Iterator[MaskRecord]:
        for index, mask in enumerate(found.masks):
            x0, y0, x1, y1 = found.boxes_xyxy[index].tolist()
            x, y = found.points[index].tolist()
            yield MaskRecord(
                rle=encode_packed(mask, height=self.height, width=self.width),
                box_xyxy=(x0, y0, x1, y1),
                predicted_iou=float(found.predicted_iou[index]),
                stability_score=float(found.stability_score[index]),
                point_coords=(x, y),
                crop_box=found.crops[index],
            )
