"""What the bytes of a run's output depend on, as one hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from amg_pipeline.config.settings import RunConfig

#: Version of the row schema (design: output directory); part of the fingerprint.
SCHEMA_VERSION = 1


def fingerprint_fields(
    config: RunConfig, *, weights_sha256: str, package_version: str
) -> dict[str, Any]:
    """Collect what a run's output bytes depend on, by dotted name.

    Left out are the output's place, the workers, credentials, and the listing of the input.

    Args:
        config: The settings, with everything resolved that is chosen when the plan is made.
        weights_sha256: Hex digest of the weights file.
        package_version: `major.minor.patch`; only the first two count.
    """
    document = config.model_dump(mode="json")
    fields = {
        f"{section}.{key}": value
        for section in ("model", "amg", "images")
        for key, value in document[section].items()
        # The digest says what the weights are; where they lie does not matter.
        if (section, key) != ("model", "weights")
    }
    fields["output.shard_size"] = config.output.shard_size
    fields["weights_sha256"] = weights_sha256
    fields["schema_version"] = SCHEMA_VERSION
    fields["package"] = ".".join(package_version.split(".")[:2])
    return fields


def fingerprint(fields: Mapping[str, Any]) -> str:
    """Hash fingerprint fields to 64 hex digits, whatever their order."""
    canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
