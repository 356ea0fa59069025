"""Settings of a run: frozen, validated, read from YAML, and fingerprinted.

Lowest first: `settings` (one section per collaborator), `documents` (YAML and overrides, for any
command), `resolution` (which value wins) and `fingerprints` (what the output depends on).
"""

from amg_pipeline.config.fingerprints import SCHEMA_VERSION, fingerprint, fingerprint_fields
from amg_pipeline.config.resolution import NAMED_AMG_SETTINGS, amg_settings, load_config
from amg_pipeline.config.settings import (
    VARIANTS,
    AmgSettings,
    ImageSettings,
    ModelSettings,
    OutputSettings,
    RunConfig,
    StorageSettings,
    WorkerSettings,
)

__all__ = [
    "NAMED_AMG_SETTINGS",
    "SCHEMA_VERSION",
    "VARIANTS",
    "AmgSettings",
    "ImageSettings",
    "ModelSettings",
    "OutputSettings",
    "RunConfig",
    "StorageSettings",
    "WorkerSettings",
    "amg_settings",
    "fingerprint",
    "fingerprint_fields",
    "load_config",
]
