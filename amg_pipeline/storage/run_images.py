"""Images of a run by number, read one at a time: nothing of the run is read before it is asked for.

Where an image lies follows from the plan and one listing of the shards, so that a run of any size
is open at once. Only names, for globs and for a search, must be looked for.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.image_masks import IMAGE_COLUMNS, ImageMasks, readable, split_batch
from amg_pipeline.storage.layout import shard_key
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.plan_parts import read_part
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan

#: Row groups that are kept; paging back and forth reads nothing twice.
_GROUPS_KEPT = 8


class RunImages:
    """The images of a run in the order of its plan, as far as their shards are done.

    Args:
        store: The run's output.
        plan: Its plan.
        committed: Numbers of the shards that are done.
        globs: Only images whose id matches one; empty for all.

    Attributes:
        plan: The run's plan.
    """

    def __init__(
        self,
        store: ObjectStore,
        plan: StoredPlan,
        committed: frozenset[int],
        *,
        globs: Sequence[str] = (),
    ) -> None:
        self.plan = plan
        self._store = store
        self._filesystem, self._root = store.arrow()
        self._lock = threading.Lock()
        self._groups: dict[tuple[int, range], dict[int, ImageMasks]] = {}
        sizes = {number: part.images_of(number) for part in plan.parts for number in part.shard_ids}
        ends = np.cumsum(list(sizes.values()), dtype=np.int64)
        is_done = np.array([number in committed for number in sizes], bool)
        self._shards = np.array(list(sizes), np.int64)[is_done]
        self._sizes = np.array(list(sizes.values()), np.int64)[is_done]
        #: Row of the plan, and number of the image, that each shard begins with.
        self._first_rows = ends[is_done] - self._sizes
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._chosen = self._match(globs) if globs else None

    @classmethod
    def open(cls, uri: str, *, globs: Sequence[str] = ()) -> RunImages:
        """Open the output of a run, which may still be going.

        Raises:
            ConfigError: If `uri` is not the output of a run.
            StorageError: If it cannot be read.
        """
        directory = RunDirectory.open(uri)
        plan = directory.require_plan()
        return cls(ObjectStore.open(uri), plan, directory.committed(plan), globs=globs)

    def __len__(self) -> int:
        return int(self._sizes.sum()) if self._chosen is None else len(self._chosen)

    def row_of(self, number: int) -> int:
        """Give the row of the plan that an image has, whatever else is committed or chosen.

        Raises:
            IndexError: If there is no such image.
        """
        if not 0 <= number < len(self):
            raise IndexError(number)
        if self._chosen is not None:
            return int(self._chosen[number])
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return int(self._first_rows[shard] + number - self._starts[shard])

    def number_of(self, row: int) -> int | None:
        """Give the number of the image in a row of the plan; None if it is not among these."""
        if self._chosen is not None:
            number = int(np.searchsorted(self._chosen, row))
            is_there = number < len(self._chosen) and self._chosen[number] == row
            return number if is_there else None
        shard = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        offset = row - int(self._first_rows[shard]) if shard >= 0 else -1
        if offset < 0 or offset >= self._sizes[shard]:
            return None
        return int(self._starts[shard]) + offset

    def read(self, number: int) -> ImageMasks:
        """Read an image with its masks.

        Raises:
            IndexError: If there is no such image.
            StorageError: If it cannot be read.
        """
        row = self.row_of(number)
        shard = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        offset = row - int(self._first_rows[shard])
        with self._lock:
            images = self._read_around(int(self._shards[shard]), offset)
        return images[offset]

    def find(self, text: str, *, limit: int) -> list[tuple[int, str]]:
        """Find images by a part of their id, in any case.

        Returns:
            Numbers and ids of the first ones.
        """
        found: list[tuple[int, str]] = []
        for first_row, ids in self._ids():
            hits = np.flatnonzero(pc.match_substring(ids, text, ignore_case=True).to_numpy())
            for index in hits.tolist():
                number = self.number_of(first_row + index)
                if number is not None:
                    found.append((number, ids[index].as_py()))
                if len(found) >= limit:
                    return found
        return found

    def _match(self, globs: Sequence[str]) -> NDArray[np.int64]:
        rows = [
            first_row + index
            for first_row, ids in self._ids()
            for index, image_id in enumerate(ids.to_pylist())
            if any(fnmatchcase(image_id, glob) for glob in globs)
        ]
        self._chosen = None
        there = [row for row in rows if self.number_of(row) is not None]
        return np.array(there, np.int64)

    def _ids(self) -> Iterator[tuple[int, pa.ChunkedArray]]:
        """Read the ids of the plan, part by part, with the row that each part begins with."""
        first_row = 0
        for part in self.plan.parts:
            ids = read_part(self._store, part, ["image_id"]).column("image_id")
            yield first_row, ids
            first_row += len(ids)

    def _read_around(self, shard: int, row: int) -> dict[int, ImageMasks]:
        """Read the row group of a row; gives its images by their rows in the shard."""
        for kept in self._groups:
            if kept[0] == shard and row in kept[1]:
                return self._groups[kept]
        path = f"{self._root.rstrip('/')}/{shard_key(shard, self.plan.fingerprint)}"
        # Opened anew each time: another process may put the shard again, with rows done again.
        with readable(), self._filesystem.open_input_file(path) as file:
            table = pq.ParquetFile(file, pre_buffer=True)
            first = 0
            for group in range(table.num_row_groups):
                rows = range(first, first + table.metadata.row_group(group).num_rows)
                if row in rows:
                    read = table.read_row_group(group, columns=IMAGE_COLUMNS)
                    [batch] = read.combine_chunks().to_batches()
                    return self._keep((shard, rows), split_batch(batch))
                first = rows.stop
        raise StorageError(
            f"A shard must have the rows that the plan gives it. Received: {first} rows, without "
            f"row {row}. Find the damaged one with `amg verify`"
        )

    def _keep(
        self, group: tuple[int, range], images: Iterable[ImageMasks]
    ) -> dict[int, ImageMasks]:
        if len(self._groups) >= _GROUPS_KEPT:
            del self._groups[next(iter(self._groups))]
        self._groups[group] = dict(zip(group[1], images, strict=True))
        return self._groups[group]
