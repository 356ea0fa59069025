"""What a run shows to Prometheus through Ray, which puts `ray_` in front of every name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from amg_pipeline.distributed.worker import RowDone
from amg_pipeline.records import ShardReport

#: Every metric, and what it says.
METRIC_NAMES: Mapping[str, str] = {
    "amg_images_total": "Images whose row was committed, by status.",
    "amg_masks_total": "Masks in those rows.",
    "amg_stage_seconds": "Seconds that a shard spent in a stage.",
    "amg_device_idle_ratio": "Share of a worker's time in which its model had nothing to do.",
    "amg_shard_attempts_total": "Failed attempts at shards, by reason.",
    "amg_shards_total": "Shards that ended, by state: committed or given_up.",
    "amg_queue_depth": "Shards that no worker has yet.",
}
_STAGE_BOUNDARIES = [
    0.01,
    0.03,
    0.1,
    0.3,
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    40.0,
    60.0,
    120.0,
    300.0,
    600.0,
]


class WorkerMetrics:
    """Counts what one worker does."""

    def __init__(self) -> None:
        self._images = Counter(
            "amg_images_total", METRIC_NAMES["amg_images_total"], tag_keys=("status",)
        )
        self._masks = Counter("amg_masks_total", METRIC_NAMES["amg_masks_total"])
        self._stages = Histogram(
            "amg_stage_seconds",
            METRIC_NAMES["amg_stage_seconds"],
            boundaries=_STAGE_BOUNDARIES,
            tag_keys=("stage",),
        )
        self._idle = Gauge("amg_device_idle_ratio", METRIC_NAMES["amg_device_idle_ratio"])

    def add_shard(self, report: ShardReport, rows: Iterable[RowDone], *, seconds: float) -> None:
        """Count a shard's rows, masks and stages, once it is committed.

        Args:
            report: What the shard came to.
            rows: Those that were made; not those that an earlier commit had.
            seconds: Since the worker's last shard ended, or since it was ready.
        """
        for row in rows:
            self._images.inc(1, tags={"status": row.status})
            if row.num_masks:
                self._masks.inc(row.num_masks)
        for stage, value in report.stage_seconds.items():
            self._stages.observe(value, tags={"stage": stage})
        busy = report.stage_seconds.get("generate", 0.0)
        self._idle.set(max(0.0, 1.0 - busy / seconds) if seconds > 0.0 else 0.0)


class DriverMetrics:
    """Counts what becomes of shards."""

    def __init__(self) -> None:
        self._attempts = Counter(
            "amg_shard_attempts_total",
            METRIC_NAMES["amg_shard_attempts_total"],
            tag_keys=("reason",),
        )
        self._shards = Counter(
            "amg_shards_total", METRIC_NAMES["amg_shards_total"], tag_keys=("state",)
        )
        self._queue = Gauge("amg_queue_depth", METRIC_NAMES["amg_queue_depth"])

    def add_failed_attempt(self, reason: str) -> None:
        """Count a failed attempt."""
        self._attempts.inc(1, tags={"reason": reason})

    def add_shard(self, state: str) -> None:
        """Count a shard that ended."""
        self._shards.inc(1, tags={"state": state})

    def set_queue_depth(self, shards: int) -> None:
        """Show how many shards wait."""
        self._queue.set(shards)
