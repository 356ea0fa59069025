"""What a run has to do: shards that are not committed, and rows that are to be done again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from amg_pipeline.planning import Plan
from amg_pipeline.records import Shard
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.status_rows import find_rows


@dataclass(frozen=True, slots=True)
class Work:
    """What is left of a plan when a run starts.

    Attributes:
        plan: The plan.
        done: Numbers of the shards that stay as they are.
        redo: Numbers of the rows to do again, by the number of their committed shard.
    """

    plan: Plan
    done: frozenset[int]
    redo: Mapping[int, frozenset[int]]

    @property
    def num_shards(self) -> int:
        """Shards that are to do."""
        return self.plan.num_shards - len(self.done)

    @property
    def num_images_done(self) -> int:
        """Images in the shards that stay as they are."""
        return self.plan.stored.count_images(self.done)

    @property
    def num_rows_again(self) -> int:
        """Rows that are to be done again."""
        return sum(map(len, self.redo.values()))

    def shards(self) -> Iterator[Shard]:
        """Read the shards that are to do, in order.

        Raises:
            StorageError: If a part of the plan is missing or damaged.
        """
        for shard in self.plan.run_directory.shards(self.plan.stored, skip=self.done):
            yield replace(shard, redo=self.redo.get(shard.shard_id))


def find_work(plan: Plan, *, retry_statuses: Collection[str] = ()) -> Work:
    """Find out what is to do, by one listing of `masks/`.

    Args:
        plan: The plan; one that was not written has no committed shards, even where those of an
            earlier run lie.
        retry_statuses: Rows of committed shards with one of these statuses are to do again.

    Raises:
        StorageError: If the output cannot be read.
    """
    directory = plan.run_directory
    committed = directory.committed(plan.stored) if plan.stored.parts else frozenset()
    redo: Mapping[int, frozenset[int]] = {}
    if committed and retry_statuses:
        found = find_rows(load_masks(directory.uri), retry_statuses)
        redo = {shard_id: rows for shard_id, rows in found.items() if shard_id in committed}
    return Work(plan, committed - redo.keys(), redo)
