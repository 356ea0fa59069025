"""What `benchmarks.scale` runs in workers instead of images, a model, or a whole worker."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from amg_pipeline.config import RunConfig
from amg_pipeline.distributed.worker import RowDone, WorkerEvent
from amg_pipeline.records import (
    CropBox,
    DecodedImage,
    ImageRef,
    MaskRecord,
    Rle,
    Shard,
    ShardReport,
)
from amg_pipeline.shard_runner import MaskGenerator

STAGES = ("load", "generate", "encode_masks", "encode_table", "commit")
SIDE = 64
MASKS_PER_IMAGE = 10
#: Start and end of each image on the system's clock.
STAMP = struct.Struct("dd")


def load_blank(ref: ImageRef, **_options: Any) -> DecodedImage:
    """Give a small black image without reading anything."""
    return DecodedImage(ref, np.zeros((SIDE, SIDE, 3), np.uint8))


@dataclass(frozen=True)
class BlankMasks:
    """Some masks that are cheap to make: rectangles of full columns."""

    records: tuple[MaskRecord, ...] = tuple(
        MaskRecord(
            rle=Rle(SIDE, SIDE, np.array([n * SIDE, SIDE, (SIDE - 1 - n) * SIDE])),
            box_xyxy=(n, 0, n, SIDE - 1),
            predicted_iou=0.9,
            stability_score=0.9,
            point_coords=(n + 0.5, 0.5),
            crop_box=CropBox(0, 0, SIDE, SIDE, layer=0),
        )
        for n in range(MASKS_PER_IMAGE)
    )

    def to_records(self) -> tuple[MaskRecord, ...]:
        """Give them."""
        return self.records


@dataclass(frozen=True)
class SleepingGenerator:
    """Makes a stub that sleeps for each image and writes down when; one file for each process."""

    seconds: float
    folder: Path

    def __call__(self, _config: RunConfig) -> MaskGenerator:
        """Stand in for `make_mask_generator`."""
        file = (self.folder / f"{os.getpid()}.stamps").open("ab", buffering=0)
        masks = BlankMasks()

        def generate(_pixels: NDArray[np.uint8]) -> BlankMasks:
            started = time.time()
            time.sleep(self.seconds)
            file.write(STAMP.pack(started, time.time()))
            return masks

        return generate


class TellingWorker:
    """Tells the driver what a worker would, and does nothing: what is left is the driver's cost."""

    rows_per_message = 10

    def __init__(self, _setup: object) -> None:
        pass

    def start(self) -> Iterator[str]:
        """Give the machine's id when the process is up, and when all is ready."""
        for _ in range(2):
            yield str(ray.get_runtime_context().get_node_id())

    def run_shard(
        self, shard: Shard, _known: object, _is_last_attempt: bool
    ) -> Iterator[tuple[WorkerEvent, ...]]:
        """Tell of all rows and a commit."""
        yield ()
        row = RowDone("ok", MASKS_PER_IMAGE)
        count = len(shard.images)
        for start in range(0, count, self.rows_per_message):
            yield (row,) * min(self.rows_per_message, count - start)
        yield (
            ShardReport(
                shard_id=shard.shard_id,
                images={"ok": count},
                unsettled=0,
                masks=count * MASKS_PER_IMAGE,
                bytes_written=0,
                stage_seconds=dict.fromkeys(STAGES, 0.0),
                elapsed_seconds=0.0,
            ),
        )
