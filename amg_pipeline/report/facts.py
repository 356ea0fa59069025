"""What a run's rows say in sum, gathered in one pass over their scores."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from amg_pipeline.report.distributions import AREAS, NUMBERS, SCORES, Distribution
from amg_pipeline.report.failures import Failures
from amg_pipeline.report.picks import Gallery, Pick
from amg_pipeline.selection import Selection
from amg_pipeline.storage.image_scores import ImageScores


@dataclass(slots=True)
class RunFacts:
    """Sums, distributions, failures and candidates for the gallery; none grows with the run.

    Attributes:
        gallery: Chooses what is shown.
        images: Images that have a row.
        images_ok: Those that did not fail.
        masks: Wanted masks.
        left_out: Masks that are not wanted.
    """

    gallery: Gallery
    images: int = 0
    images_ok: int = 0
    masks: int = 0
    left_out: int = 0
    failures: Failures = field(default_factory=Failures)
    predicted_iou: Distribution = field(default_factory=lambda: Distribution(SCORES))
    stability: Distribution = field(default_factory=lambda: Distribution(SCORES))
    area: Distribution = field(default_factory=lambda: Distribution(AREAS))
    masks_per_image: Distribution = field(default_factory=lambda: Distribution(NUMBERS))
    _most_masks: int = 0

    @property
    def most_masks(self) -> int:
        """The most masks of one image."""
        return self._most_masks

    def add(self, image: ImageScores, selection: Selection) -> int:
        """Take an image into account.

        Returns:
            Its number of wanted masks.
        """
        self.images += 1
        if image.status != "ok":
            self.failures.add(image)
            return 0
        chosen = selection.choose(image)
        count = len(chosen)
        is_all = count == len(image)
        iou = image.predicted_iou if is_all else image.predicted_iou[chosen]
        self.images_ok += 1
        self.masks += count
        self.left_out += len(image) - count
        self._most_masks = max(self._most_masks, count)
        self.predicted_iou.add(iou)
        self.stability.add(image.stability_score if is_all else image.stability_score[chosen])
        self.area.add(image.area if is_all else image.area[chosen])
        self.masks_per_image.add(np.array([count]))
        mean = float(iou.mean(dtype=np.float64)) if count else None
        self.gallery.offer(Pick(image.image_id, image.place, count, mean))
        return count
