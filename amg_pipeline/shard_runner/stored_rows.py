"""Rows that a committed shard has already: which of them stay when it is put once more."""

from __future__ import annotations

from amg_pipeline.errors import StorageError
from amg_pipeline.records import ImageResult, Shard, is_settled
from amg_pipeline.storage.mask_table import decode_table
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan


class StoredRows:
    """Reads the rows of committed shards.

    Args:
        directory: The output.
        plan: The output's plan.
    """

    def __init__(self, directory: RunDirectory, plan: StoredPlan) -> None:
        self._directory = directory
        self._plan = plan

    def kept(self, shard: Shard) -> dict[int, ImageResult]:
        """Give the rows that are not to be done again, by their number.

        Raises:
            StorageError: If the shard cannot be read, or holds other images.
        """
        if shard.redo is None:
            return {}
        return {n: row for n, row in enumerate(self._read(shard)) if n not in shard.redo}

    def with_facts(self, shard: Shard, results: list[ImageResult]) -> list[ImageResult]:
        """Put stored facts in place of failures that may pass.

        Another driver, or a worker that was taken for lost, may have committed the shard meanwhile,
        and have come through what failed here.

        Args:
            shard: What was done.
            results: A row for each of its images.

        Raises:
            StorageError: If the shard cannot be read, or holds other images.
        """
        if all(map(_is_fact, results)):
            return results
        stored = self._read(shard) or results
        return [
            row if _is_fact(row) or not _is_fact(there) else there
            for row, there in zip(results, stored, strict=True)
        ]

    def _read(self, shard: Shard) -> list[ImageResult]:
        """Read all rows; none where nothing is committed, perhaps as somebody removed it."""
        try:
            data = self._directory.read_shard(self._plan, shard.shard_id)
        except FileNotFoundError:
            return []
        rows = list(decode_table(data))
        if [row.ref.image_id for row in rows] != [ref.image_id for ref in shard.images]:
            raise StorageError(
                f"Shard {shard.shard_id} must hold the images that the plan says. Received: "
                "others. Remove its object to do all of it again"
            )
        return rows


def _is_fact(row: ImageResult) -> bool:
    return is_settled(row.status, row.error_type)
