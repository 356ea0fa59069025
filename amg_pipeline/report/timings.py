"""Where a run's time went: stages, and the images that took longest, from what is beside it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from amg_pipeline.storage.run_directory import RunDirectory

#: Images that a page names.
MOST_NAMED = 20
_READS_AT_ONCE = 16
#: Bounds what waits for a thread.
_SHARDS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Timings:
    """What the recorded shards say together.

    Attributes:
        shards: Shards that say something; not all need to.
        images: Their images.
        seconds: Wall-clock seconds of the shards, summed; of workers side by side all count.
        stage_seconds: Seconds by stage, the longest first; stages overlap.
        slowest: Images with their seconds in all stages, the slowest first.
    """

    shards: int
    images: int
    seconds: float
    stage_seconds: Mapping[str, float]
    slowest: tuple[tuple[str, float], ...]


def read_timings(directory: RunDirectory, shard_ids: Iterable[int]) -> Timings:
    """Read what is recorded about shards; what is missing or malformed says nothing.

    Raises:
        StorageError: If the store keeps failing.
    """
    shards = images = 0
    seconds = 0.0
    stages: Counter[str] = Counter()
    slowest: list[tuple[float, str]] = []
    for record in _records(directory, shard_ids):
        try:
            elapsed = float(record["elapsed_seconds"])
            of_shard = {str(name): float(s) for name, s in record["stage_seconds"].items()}
            count = sum(int(n) for n in record["images"].values())
            slow = [(float(s), str(name)) for name, s in record.get("slowest_images", ())]
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        shards, images, seconds = shards + 1, images + count, seconds + elapsed
        stages.update(of_shard)
        slowest = heapq.nlargest(MOST_NAMED, [*slowest, *slow])
    return Timings(
        shards=shards,
        images=images,
        seconds=seconds,
        stage_seconds=dict(stages.most_common()),
        slowest=tuple((name, s) for s, name in slowest),
    )


def _records(directory: RunDirectory, shard_ids: Iterable[int]) -> Iterator[dict[str, Any]]:
    left = iter(shard_ids)
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="stats") as pool:
        while some := tuple(islice(left, _SHARDS_AT_ONCE)):
            for found in pool.map(lambda shard: _read(directory, shard), some):
                yield from found


def _read(directory: RunDirectory, shard_id: int) -> list[dict[str, Any]]:
    try:
        return list(directory.read_stats([shard_id]))
    except ValueError:
        # A killed or foreign writer's; timings are best effort.
        return []
