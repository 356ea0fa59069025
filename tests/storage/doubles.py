"""Stand-ins and small data that the tests of storage share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.records import CropBox, ImageRef, ImageResult, MaskRecord, Rle
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.local_files import LocalFiles
from amg_pipeline.storage.mask_table import TableMetadata

#: Retries without waiting.
EAGER = RetryPolicy(attempts=3, timeout_s=30, wait_initial_s=0, wait_max_s=0, wait_jitter_s=0)

METADATA = TableMetadata(
    fingerprint="0123456789abcdef" * 4,
    package_version="0.1.0",
    model={"variant": "tiny", "weights_sha256": "ab" * 32},
    amg={"points_per_side": 32, "pred_iou_thresh": 0.5},
)


class Killed(BaseException):
    """The process ends here: no handler of the package may catch it."""


class MortalFiles(LocalFiles):
    """Files whose owner is killed around one of the steps that change something.

    `kill_at` counts steps from 0; even ones end before the change, odd ones right after it.
    """

    def __init__(self, root: str, *, kill_at: int) -> None:
        super().__init__(root)
        self._left = kill_at

    def put(self, key: str, data: bytes) -> None:
        self._step()
        super().put(key, data)
        self._step()

    def create(self, key: str, data: bytes) -> None:
        self._step()
        super().create(key, data)
        self._step()

    def move(self, source: str, destination: str) -> None:
        self._step()
        super().move(source, destination)
        self._step()

    def remove(self, key: str) -> None:
        self._step()
        super().remove(key)
        self._step()

    def _step(self) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1


def mask_to_rle(mask: NDArray[np.bool_]) -> Rle:
    """Run lengths by the definition, independently of the package and of pycocotools."""
    height, width = mask.shape
    counts, current = [0], False
    for pixel in mask.flatten(order="F").tolist():
        if pixel != current:
            counts.append(0)
            current = pixel
        counts[-1] += 1
    return Rle(height, width, np.asarray(counts, dtype=np.int64))


def make_record(mask: NDArray[np.bool_], *, score: float = 0.75) -> MaskRecord:
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (
        (int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))
        if rows.size
        else (0, 0, 0, 0)
    )
    return MaskRecord(
        rle=mask_to_rle(mask),
        box_xyxy=box,
        predicted_iou=score,
        stability_score=0.5,
        point_coords=(width / 3, height / 7),
        crop_box=CropBox(0, 0, width, height, layer=0),
    )


def make_result(
    image_id: str = "a.jpg", *, masks: int = 2, height: int = 6, width: int = 9, seed: int = 0
) -> ImageResult:
    generator = np.random.default_rng(seed)
    return ImageResult(
        ref=ImageRef(image_id, f"/in/{image_id}"),
        status="ok",
        width=width,
        height=height,
        masks=tuple(make_record(generator.random((height, width)) < 0.4) for _ in range(masks)),
    )


def failed_result(image_id: str = "bad.jpg") -> ImageResult:
    return ImageResult(
        ref=ImageRef(image_id, f"/in/{image_id}"),
        status="decode_error",
        error_type="ImageDecodeError",
        error_message="The file must be complete",
    )
