"""The output of a run: its plan, its shards, and what is recorded about them.

A shard is done exactly when its object in `masks/` exists; nothing else marks it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa

from amg_pipeline.errors import ConfigError, StorageError, TransientStorageError
from amg_pipeline.records import Shard
from amg_pipeline.storage import layout, old_generations
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.manifest import without
from amg_pipeline.storage.object_store import ObjectStore, find_kind
from amg_pipeline.storage.plan_parts import read_part, read_shards, write_parts
from amg_pipeline.storage.row_counts import RowCounts, count_shards
from amg_pipeline.storage.stored_plan import PlanPart, StoredPlan
from amg_pipeline.storage.uris import redact
from amg_pipeline.storage.verification import Problem, shard_faults

_DEFAULT_RETRY = RetryPolicy()


class RunDirectory:
    """Everything that a run reads and writes below its output address.

    Args:
        store: The output.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @classmethod
    def open(cls, uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> RunDirectory:
        """Open an output, which need not exist.

        Raises:
            ConfigError: If the address's scheme is unknown.
        """
        return cls(ObjectStore.open(uri, retry=retry))

    @property
    def uri(self) -> str:
        """The output's address."""
        return self._store.uri

    # The plan

    def read_plan(self) -> StoredPlan | None:
        """Read the plan, its last edition; None where there is none yet.

        Raises:
            StorageError: If it is unreadable.
        """
        plan: StoredPlan | None = None
        while True:
            edition = plan.edition + 1 if plan else 1
            try:
                data = self._store.read(layout.edition_key(edition))
            except FileNotFoundError:
                return plan
            found = StoredPlan.from_json(data)
            if plan is not None and found.fingerprint != plan.fingerprint:
                # A late driver's, whose run was moved away meanwhile.
                return plan
            plan = found

    def require_plan(self) -> StoredPlan:
        """Read the plan.

        Raises:
            ConfigError: If there is none, so that this is not the output of a run.
        """
        plan = self.read_plan()
        if plan is None:
            raise ConfigError(
                f"OUTPUT must be the output of a run, with {layout.PLAN_KEY} in it. "
                f"Received: {redact(self.uri)}"
            )
        return plan

    def refuse_foreign(self) -> None:
        """Make sure that an output without a plan holds nothing of anybody else.

        What may be there: parts of a plan whose writer was killed, and old generations. Beside
        an old generation, anything may lie that is not where a new one would be.

        Raises:
            ConfigError: If there is anything else.
        """
        if find_kind(self.uri) == "file":
            raise ConfigError(f"OUTPUT must be a folder. Received: a file, {redact(self.uri)}")
        ours = (layout.PLAN_FOLDER, layout.OLD_FOLDER)
        has_old_generation = old_generations.is_any(self._store)
        for info in self._store.list():
            is_beside = has_old_generation and not info.key.startswith(layout.RUN_KEYS)
            if not (is_beside or info.key.startswith(ours)):
                raise ConfigError(
                    f"OUTPUT must be empty or the output of a run. Received: {redact(self.uri)}, "
                    f"which has {info.key!r} but no {layout.PLAN_KEY}. Choose another folder"
                )

    def write_plan_parts(
        self, images: pa.Table, *, shard_size: int, before: tuple[PlanPart, ...] = ()
    ) -> tuple[PlanPart, ...]:
        """Write the rows of a plan; without `create_plan`, nothing refers to them.

        Args:
            images: As `manifest.list_images` returns them.
            shard_size: Images of a shard.
            before: The parts of the edition before, whose shards stay as they are.
        """
        return write_parts(self._store, images, shard_size=shard_size, before=before)

    def copy_plan_parts(self, source: RunDirectory, plan: StoredPlan) -> None:
        """Take over the rows of another output's plan; `create_plan` makes them count.

        Args:
            source: The other output.
            plan: Its plan.

        Raises:
            StorageError: If a part is missing.
        """
        for part in plan.parts:
            try:
                data = source._store.read(part.key)
            except FileNotFoundError as error:
                raise StorageError(
                    f"The plan's part {part.key} must be there. Received: nothing of the name in "
                    f"{redact(source.uri)}"
                ) from error
            self._store.put(part.key, data)

    def create_plan(self, plan: StoredPlan) -> None:
        """Write an edition of the plan, which makes it valid.

        Each edition is an object of its own that is only ever created, so that of two drivers that
        add images at the same time one finds out, and none reads a plan that another replaces.

        Raises:
            CommitConflictError: If there is one, for instance of a second driver.
        """
        self._store.create(layout.edition_key(plan.edition), plan.to_json())

    def without_planned(self, plan: StoredPlan, images: pa.Table) -> pa.Table:
        """Leave out the images of a list that the plan has.

        Raises:
            StorageError: If a part of the plan is missing or damaged.
        """
        known = [
            read_part(self._store, part, ["image_id"]).column("image_id") for part in plan.parts
        ]
        return without(images, pa.chunked_array([c for ids in known for c in ids.chunks]))

    def move_to_old(self, plan: StoredPlan) -> str:
        """Move what belongs to a run to `_old/FP8/`; after a kill, the same call finishes it.

        What else lies in the output, for instance a page about the run, stays where it is.

        Returns:
            The folder that it was moved to.
        """
        return old_generations.move_to_old(self._store, plan)

    def shards(self, plan: StoredPlan, *, skip: Container[int] = frozenset()) -> Iterator[Shard]:
        """Read the shards of a plan in order, one part of it in memory at a time.

        Args:
            plan: The plan of this output.
            skip: Numbers of shards to leave out; parts without others are not read.

        Raises:
            StorageError: If a part is missing or damaged.
        """
        for part in plan.parts:
            yield from read_shards(self._store, part, skip=skip)

    def has_all_rows(self, plan: StoredPlan) -> bool:
        """Tell whether the plan's rows can be read: a `move_to_old` takes them before the plan.

        Raises:
            TransientStorageError: If the store kept failing.
        """
        try:
            for part in plan.parts:
                read_part(self._store, part)
        except TransientStorageError:
            raise
        except StorageError:
            return False
        return True

    # Shards

    def committed(self, plan: StoredPlan) -> frozenset[int]:
        """List the shards that are done, by one listing of `masks/`."""
        return frozenset(self.commit_times(plan))

    def commit_times(self, plan: StoredPlan) -> dict[int, float | None]:
        """List when the shards that are done were committed, by the store's clock; as `committed`.

        Returns:
            Seconds since 1970 where the store tells, by the shards' numbers.
        """
        return {
            shard_id: info.modified
            for info in self._store.list(layout.MASKS_FOLDER)
            if (shard_id := _own_shard(info.key, plan)) is not None
        }

    def count_rows(self, plan: StoredPlan) -> RowCounts:
        """Count the rows of all shards that are done, those of later editions of the plan too.

        Raises:
            StorageError: If a shard cannot be read.
        """
        wanted = layout.fingerprint_prefix(plan.fingerprint)
        shards = (
            info
            for info in self._store.list(layout.MASKS_FOLDER)
            if (parsed := layout.parse_shard_key(info.key)) and parsed[1] == wanted
        )
        return count_shards(self.uri, shards)

    def commit_shard(self, plan: StoredPlan, shard_id: int, data: bytes) -> str:
        """Put a shard's object, which makes the shard done.

        Args:
            plan: The plan of this output.
            shard_id: The shard's number.
            data: As `mask_table.encode_table` makes it.

        Returns:
            The object's key.
        """
        key = layout.shard_key(shard_id, plan.fingerprint)
        self._store.put(key, data)
        return key

    def read_shard(self, plan: StoredPlan, shard_id: int) -> bytes:
        """Read a shard's object.

        Raises:
            FileNotFoundError: If the shard is not done.
        """
        return self._store.read(layout.shard_key(shard_id, plan.fingerprint))

    def verify(self, plan: StoredPlan) -> Iterator[Problem]:
        """Read back every shard that is done, and name what does not belong into `masks/`."""
        for info in self._store.list(layout.MASKS_FOLDER):
            if _own_shard(info.key, plan) is None:
                yield Problem(info.key, "this object belongs to no shard of the plan; remove it")
        committed = self.committed(plan)
        missing = frozenset(range(plan.num_shards)) - committed
        for shard in self.shards(plan, skip=missing):
            key = layout.shard_key(shard.shard_id, plan.fingerprint)
            data = self._store.read(key)
            faults = shard_faults(data, fingerprint=plan.fingerprint, images=shard.images)
            for fault in faults:
                yield Problem(key, fault)

    # Records beside the result

    def write_attempt(self, shard_id: int, record: Mapping[str, Any]) -> int:
        """Record a failed attempt at a shard.

        Returns:
            The attempt's number, from 1; of two drivers at once, both may have the same.
        """
        number = 1 + max(
            (number for _, number, _ in self._attempts(layout.shard_name(shard_id))), default=0
        )
        key = layout.attempt_key(shard_id, number, secrets.token_hex(4))
        self._store.put(key, _to_json(record))
        return number

    def read_attempts(self, shard_id: int) -> list[dict[str, Any]]:
        """Read the failed attempts at a shard, in order."""
        keys = sorted(self._attempts(layout.shard_name(shard_id)))
        return [json.loads(self._store.read(key)) for _, _, key in keys]

    def read_all_attempts(self, *, skip: Container[int]) -> dict[int, list[dict[str, Any]]]:
        """Read the failed attempts at all shards, in order, by one listing.

        Args:
            skip: Numbers of shards to leave out.
        """
        attempts: dict[int, list[dict[str, Any]]] = {}
        for shard_id, _, key in sorted(a for a in self._attempts() if a[0] not in skip):
            attempts.setdefault(shard_id, []).append(json.loads(self._store.read(key)))
        return attempts

    def write_stats(self, shard_id: int, record: Mapping[str, Any]) -> None:
        """Record how a shard went, after its commit; a failure to do so is no failure."""
        with suppress(StorageError):
            self._store.put(layout.stats_key(shard_id), _to_json(record))

    def read_stats(self, shard_ids: Iterable[int]) -> Iterator[dict[str, Any]]:
        """Read what is recorded about shards that are done, as far as it is there."""
        for shard_id in shard_ids:
            with suppress(FileNotFoundError):
                yield json.loads(self._store.read(layout.stats_key(shard_id)))

    def write_summary(self, summary: Mapping[str, Any], *, is_complete: bool) -> None:
        """Record the end of a run.

        Args:
            summary: Counts, rates, reasons of failures.
            is_complete: Whether every shard is committed; only then `_SUCCESS` is written.
        """
        data = _to_json(summary)
        self._store.put(layout.SUMMARY_KEY, data)
        if is_complete:
            self._store.sweep(layout.MASKS_FOLDER)
            self._store.put(layout.SUCCESS_KEY, b"")

    def withdraw_success(self) -> None:
        """Remove `_SUCCESS`, before shards are added; the end of a run puts it back."""
        self._store.remove(layout.SUCCESS_KEY)

    def _attempts(self, shard: str = "") -> Iterator[tuple[int, int, str]]:
        """List the numbers of shard and attempt, and the key, of one shard's records or of all."""
        for info in self._store.list(layout.ATTEMPTS_FOLDER + shard):
            if (parsed := layout.parse_attempt_key(info.key)) is not None:
                yield (*parsed, info.key)


def _own_shard(key: str, plan: StoredPlan) -> int | None:
    parsed = layout.parse_shard_key(key)
    if parsed is None or parsed[1] != layout.fingerprint_prefix(plan.fingerprint):
        return None
    return parsed[0] if parsed[0] < plan.num_shards else None


def _to_json(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()
