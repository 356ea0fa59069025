"""What is left to do for an image once the model has done its part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amg_pipeline.amg.candidates import Candidates
from amg_pipeline.amg.regions import remove_small_regions
from amg_pipeline.amg.rle import encode_packed
from amg_pipeline.config import AmgSettings
from amg_pipeline.records import MaskRecord


@dataclass(frozen=True, slots=True)
class FoundMasks:
    """The masks that a model found in an image; neither the model nor the pixels are needed more.

    Attributes:
        candidates: The masks, in the image frame, without duplicates.
        settings: How they are cleaned and chosen.
        height: Rows of the image.
        width: Columns of the image.
    """

    candidates: Candidates
    settings: AmgSettings
    height: int
    width: int

    def to_records(self) -> tuple[MaskRecord, ...]:
        """Clean the masks, encode them, and leave out those of unwanted areas."""
        found = self.candidates
        if self.settings.min_mask_region_area > 0:
            found = remove_small_regions(
                found, settings=self.settings, height=self.height, width=self.width
            )
        return tuple(record for record in self._encode(found) if self._accepts_area(record))

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

    def _accepts_area(self, record: MaskRecord) -> bool:
        settings, area = self.settings, record.rle.area
        if area < settings.min_area:
            return False
        if settings.max_area is not None and area > settings.max_area:
            return False
        image_area = record.rle.height * record.rle.width
        fraction = settings.max_area_fraction
        return fraction >= 1 or area < fraction * image_area
