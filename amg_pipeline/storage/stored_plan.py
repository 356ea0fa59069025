"""What `plan.json` says: the settings of a run, and where the rows of its plan lie."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.layout import PLAN_KEY


@dataclass(frozen=True, slots=True)
class PlanPart:
    """Some consecutive shards of a plan; all are full but perhaps the last one.

    Attributes:
        key: The object with their rows.
        first_shard: Number of the first one.
        num_shards: How many they are.
        num_images: Their images.
        shard_size: Images of a full shard.
    """

    key: str
    first_shard: int
    num_shards: int
    num_images: int
    shard_size: int

    @property
    def shard_ids(self) -> range:
        """The shards' numbers."""
        return range(self.first_shard, self.first_shard + self.num_shards)

    def images_of(self, shard_id: int) -> int:
        """Count the images of one of the shards."""
        before = (shard_id - self.first_shard) * self.shard_size
        return min(self.shard_size, self.num_images - before)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlan:
    """A plan as it is stored.

    Attributes:
        fingerprint: 64 hex digits of `fingerprint_fields`.
        fingerprint_fields: What the output's bytes depend on, by dotted name.
        config: All resolved settings.
        weights_sha256: Digest of the model's weights.
        package_version: Version that made the plan.
        num_images: Images of the input.
        num_bytes: Their size, as far as the listing told it.
        num_unsized: Images of unknown size.
        num_shards: Shards of the plan.
        parts: Where the plan's rows lie; empty for a plan that was not written.
        edition: 1, and one more each time that images were added.
    """

    fingerprint: str
    fingerprint_fields: Mapping[str, Any]
    config: Mapping[str, Any]
    weights_sha256: str
    package_version: str
    schema_version: int
    num_images: int
    num_bytes: int
    num_unsized: int
    num_shards: int
    parts: tuple[PlanPart, ...] = ()
    edition: int = 1

    def count_images(self, shards: Iterable[int]) -> int:
        """Count the images of some shards."""
        wanted = frozenset(shards)
        return sum(
            part.images_of(shard_id)
            for part in self.parts
            for shard_id in part.shard_ids
            if shard_id in wanted
        )

    def to_json(self) -> bytes:
        """Write the plan; the same plan gives the same bytes."""
        document = {name: getattr(self, name) for name in _NAMES}
        document["parts"] = [asdict(part) for part in self.parts]
        return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> StoredPlan:
        """Read a plan.

        Raises:
            StorageError: If the bytes are no plan of this version.
        """
        try:
            document = json.loads(data)
            document["parts"] = tuple(PlanPart(**part) for part in document["parts"])
            return cls(**document)
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{PLAN_KEY} must be a plan of this version. Received: {error}. "
                "Use the version that wrote it, or another OUTPUT"
            ) from error


_NAMES = tuple(StoredPlan.__dataclass_fields__)
