"""Plan if needed: from settings to a run whose input, shards and fingerprint are fixed.

A stored plan is authoritative: with the same fingerprint it is taken up and the input is not
listed again; with another one the run is refused and nothing is touched.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from amg_pipeline.config import (
    SCHEMA_VERSION,
    ModelSettings,
    RunConfig,
    WorkerSettings,
    fingerprint,
    fingerprint_fields,
)
from amg_pipeline.errors import CommitConflictError, ConfigError, FingerprintMismatchError
from amg_pipeline.run_addresses import check_addresses, with_absolute_addresses
from amg_pipeline.storage.connections import configure_stores
from amg_pipeline.storage.layout import OLD_FOLDER, fingerprint_prefix
from amg_pipeline.storage.manifest import count_bytes, list_images
from amg_pipeline.storage.mask_table import TableMetadata
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan
from amg_pipeline.storage.uris import redact

#: From variant and weights address (None: the packaged ones) to a SHA-256 in hex.
WeightsDigest = Callable[[str, str | None], str]

#: Raises if the model of a run could not be made; without making it.
ModelCheck = Callable[[ModelSettings], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run that is ready to go.

    Attributes:
        run_directory: Where the plan is and the results go.
        stored: The plan as it is stored, or would be.
        config: All settings, with everything resolved that is chosen when the plan is made.
        is_resumed: Whether the plan was there before.
        package_version: Of the package that is running.
    """

    run_directory: RunDirectory
    stored: StoredPlan
    config: RunConfig
    is_resumed: bool
    package_version: str

    @property
    def fingerprint(self) -> str:
        """64 hex digits of what the output's bytes depend on."""
        return self.stored.fingerprint

    @property
    def num_images(self) -> int:
        """Images of the run."""
        return self.stored.num_images

    @property
    def num_bytes(self) -> int:
        """Size of the images, as far as the listing told it."""
        return self.stored.num_bytes

    @property
    def num_shards(self) -> int:
        """Shards of the run."""
        return self.stored.num_shards

    @property
    def table_metadata(self) -> TableMetadata:
        """What the footer of every shard says."""
        model = self.config.model
        return TableMetadata(
            fingerprint=self.fingerprint,
            package_version=self.package_version,
            model={
                "variant": model.variant,
                "weights_sha256": self.stored.weights_sha256,
                "precision": model.precision,
                "backend": model.backend,
            },
            amg=self.config.amg.model_dump(mode="json"),
        )


def make_plan(
    config: RunConfig,
    *,
    package_version: str,
    force: bool = False,
    extend: bool = False,
    dry_run: bool = False,
    weights_digest: WeightsDigest | None = None,
    check_model: ModelCheck | None = None,
    cpu_count: int | None = None,
) -> Plan:
    """Take up the plan of an output, or make one.

    Args:
        config: The settings as asked for.
        package_version: Version of the running package.
        force: Move a run with other settings to `_old/FP8/` and plan afresh; one with the same
            settings is taken up, unless its plan is damaged.
        extend: List the input of a plan that is taken up again, and add what is new as new shards.
        dry_run: List and count, but write nothing and move nothing.
        weights_digest: Takes the digest of the weights; the model's own by default.
        check_model: Makes sure that a new plan's model can be made: by default that its backend
            is installed and that its weights fit it.
        cpu_count: Cores of this machine, for settings that default to them.

    Raises:
        ConfigError: If the input is empty, the output is not ours, weights are missing, or the
            backend is not installed.
        WeightsError: If the weights are unreadable or do not fit the variant.
        FingerprintMismatchError: If the output was made with other settings, and not `force`.
        StorageError: If the input cannot be listed or the output not written.
    """
    config = with_absolute_addresses(config)
    check_addresses(config)
    configure_stores(config.storage)
    directory = RunDirectory.open(config.output.uri)
    found = directory.read_plan()
    if found is None:
        directory.refuse_foreign()
    digest = (weights_digest or _model_weights_digest)(config.model.variant, config.model.weights)
    if found is not None:
        resumed = _resolve(config, found, cpu_count=cpu_count)
        asked = _describe(resumed, package_version, digest)
        is_same = asked.fingerprint == found.fingerprint
        if not force or (is_same and directory.has_all_rows(found)):
            plan = _take_up(directory, resumed, found, asked)
            return _extend(plan, dry_run=dry_run) if extend else plan
    resolved = _resolve(config, None, cpu_count=cpu_count)
    # Before anything is written: a plan whose model cannot be made would block the output.
    (check_model or _check_model)(resolved.model)
    images = list_images(resolved.images)
    shard_size = resolved.output.shard_size
    draft = _with_images(
        _describe(resolved, package_version, digest), images, shard_size=shard_size
    )
    plan = Plan(
        run_directory=directory,
        stored=draft,
        config=resolved,
        is_resumed=False,
        package_version=package_version,
    )
    if dry_run:
        return plan
    if found is not None:
        directory.move_to_old(found)
    parts = directory.write_plan_parts(images, shard_size=shard_size)
    plan = replace(plan, stored=replace(draft, parts=parts))
    try:
        directory.create_plan(plan.stored)
    except CommitConflictError:
        # Another driver was faster, or our own answer was lost; its plan may be the same.
        other = directory.require_plan()
        resumed = _resolve(config, other, cpu_count=cpu_count)
        asked = _describe(resumed, package_version, digest)
        return _take_up(directory, resumed, other, asked)
    return plan


def _with_images(plan: StoredPlan, images: Any, *, shard_size: int) -> StoredPlan:
    """Count more images, as shards of their own."""
    num_bytes, num_unsized = count_bytes(images)
    return replace(
        plan,
        num_images=plan.num_images + images.num_rows,
        num_bytes=plan.num_bytes + num_bytes,
        num_unsized=plan.num_unsized + num_unsized,
        num_shards=plan.num_shards - (-images.num_rows // shard_size),
    )


def _extend(plan: Plan, *, dry_run: bool) -> Plan:
    """Add the images of the input that a plan does not have; its own shards stay as they are."""
    settings, directory = plan.config.images, plan.run_directory
    if settings.limit is not None or settings.sample is not None:
        raise ConfigError(
            "--extend needs a run of all images: of more images, images.limit and images.sample "
            f"would choose others. Received: limit {settings.limit}, sample {settings.sample}. "
            "Choose another OUTPUT"
        )
    listed, shard_size = list_images(settings), plan.config.output.shard_size
    while True:
        stored = plan.stored
        new = directory.without_planned(stored, listed)
        if not new.num_rows:
            return plan
        extended = _with_images(stored, new, shard_size=shard_size)
        if dry_run:
            return replace(plan, stored=extended)
        parts = directory.write_plan_parts(new, shard_size=shard_size, before=stored.parts)
        extended = replace(extended, parts=stored.parts + parts, edition=stored.edition + 1)
        directory.withdraw_success()
        try:
            directory.create_plan(extended)
        except CommitConflictError:
            # Another driver was faster, or our own answer was lost: what is still new after that?
            plan = replace(plan, stored=directory.require_plan())
            if plan.stored.edition == stored.edition:
                raise
        else:
            return replace(plan, stored=extended)


def _resolve(config: RunConfig, stored: StoredPlan | None, *, cpu_count: int | None) -> RunConfig:
    """Fix the settings that default to the machine; a stored plan keeps its own."""
    if config.model.intra_op_threads is not None:
        return config
    threads = stored.config["model"]["intra_op_threads"] if stored is not None else None
    chosen = threads or _cores_of_a_worker(config.workers, cpu_count or os.cpu_count() or 1)
    model = config.model.model_copy(update={"intra_op_threads": chosen})
    return config.model_copy(update={"model": model})


def _cores_of_a_worker(workers: WorkerSettings, cpu_count: int) -> int:
    """Count the cores that a model may use: of a cluster what its worker asks for, else all.

    A cluster's machines are others than this one, which may be a small head. How many workers there
    are is left out, so that it changes no byte.
    """
    is_on_cluster = workers.address or os.environ.get("RAY_ADDRESS")
    return workers.cores_per_worker if is_on_cluster else cpu_count


def _describe(config: RunConfig, package_version: str, digest: str) -> StoredPlan:
    """Write down what was asked for, without looking at the input."""
    fields = fingerprint_fields(config, weights_sha256=digest, package_version=package_version)
    return StoredPlan(
        fingerprint=fingerprint(fields),
        fingerprint_fields=fields,
        config=config.model_dump(mode="json"),
        weights_sha256=digest,
        package_version=package_version,
        schema_version=SCHEMA_VERSION,
        num_images=0,
        num_bytes=0,
        num_unsized=0,
        num_shards=0,
    )


def _take_up(
    directory: RunDirectory, config: RunConfig, stored: StoredPlan, asked: StoredPlan
) -> Plan:
    if stored.fingerprint != asked.fingerprint:
        differences = _differences(stored, asked)
        raise FingerprintMismatchError(
            f"OUTPUT {redact(directory.uri)} was made with other settings: {differences}. Give the "
            "same settings to resume, choose another OUTPUT, or pass --force to move what is there "
            f"to {OLD_FOLDER}{fingerprint_prefix(stored.fingerprint)}/ and start afresh"
        )
    return Plan(
        run_directory=directory,
        stored=stored,
        config=config,
        is_resumed=True,
        package_version=asked.package_version,
    )


def _differences(stored: StoredPlan, asked: StoredPlan) -> str:
    old, new = stored.fingerprint_fields, asked.fingerprint_fields
    absent: Any = "absent"
    return "; ".join(
        f"{name} was {_shown(old.get(name, absent))}, asked for {_shown(new.get(name, absent))}"
        for name in sorted({*old, *new})
        if old.get(name, absent) != new.get(name, absent)
    )


def _shown(value: object) -> str:
    """Write a setting into a message; a text may be an address with a credential in it."""
    return repr(redact(value) if isinstance(value, str) else value)


def _model_weights_digest(variant: str, weights: str | None) -> str:
    from amg_pipeline.sam.weights import weights_sha256

    return weights_sha256(variant, weights)


def _check_model(model: ModelSettings) -> None:
    """Look at the backend's package and the weights' shapes; neither is loaded."""
    if importlib.util.find_spec(model.backend) is None:
        raise ConfigError(
            f"model.backend must be installed. Received: {model.backend!r}, which is not; "
            f"try pip install 'amg_pipeline[{model.backend}]'"
        )
    from amg_pipeline.sam.presets import PRESETS
    from amg_pipeline.sam.weights.architecture import expected_shapes, of_preset
    from amg_pipeline.sam.weights.checkpoint import open_weights, require_fit
    from amg_pipeline.sam.weights.source import packaged

    source = packaged(model.variant) if model.weights is None else model.weights
    with open_weights(source) as opened:
        require_fit(opened, expected_shapes(of_preset(PRESETS[model.variant])), source)
