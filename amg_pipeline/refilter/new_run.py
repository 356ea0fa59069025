"""The output of a run that was never made: what a stored one gives with other settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.scores import passes_areas, passes_predicted_iou
from amg_pipeline.config import AmgSettings, RunConfig, fingerprint, load_config
from amg_pipeline.errors import FingerprintMismatchError
from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageResult, MaskRecord
from amg_pipeline.refilter.cleaning import CleaningSettings, clean
from amg_pipeline.refilter.exactness import check_exact
from amg_pipeline.refilter.replay import replay
from amg_pipeline.storage.kept_masks import MaskColumns, keep_masks
from amg_pipeline.storage.mask_table import decode_table, encode_rows, encode_table, read_table
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan
from amg_pipeline.storage.uris import absolute_uri, redact

#: Called after each shard with its images and masks.
OnShard = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Refilter:
    """What is to be done: from one output to another.

    Attributes:
        source: The stored run.
        stored: Its plan.
        plan: The new run.
        cleaning: What is done to the masks besides.
    """

    source: RunDirectory
    stored: StoredPlan
    plan: Plan
    cleaning: CleaningSettings

    @property
    def old_amg(self) -> AmgSettings:
        """The settings that the stored masks were found with."""
        return AmgSettings.model_validate(self.stored.config["amg"])


def plan_refilter(
    output: str,
    new: str,
    *,
    overrides: Iterable[str] = (),
    cleaning: CleaningSettings | None = None,
) -> Refilter:
    """Make the plan of the new run in NEW, or take up the one that is there.

    Without `cleaning`, it is the plan of a fresh run with these settings, which `amg run` takes up.
    Of candidates the finished masks are made, unless `amg.keep_candidates=true` is given.

    Args:
        output: The stored run.
        new: Where the new one goes.
        overrides: `amg.key=value` strings.
        cleaning: What is done to the masks besides.

    Raises:
        ConfigError: If `output` is no run, `new` is taken, or a setting can't be changed.
        FingerprintMismatchError: If `new` is the output of a run with other settings.
    """
    source, cleaning = RunDirectory.open(output), cleaning or CleaningSettings()
    stored = source.require_plan()
    new = absolute_uri(new)
    before = RunConfig.model_validate(stored.config)
    config = load_config(
        json.dumps(stored.config),
        overrides=["amg.keep_candidates=false", *overrides],
        settings={"output": {"uri": new}},
    )
    check_exact(before, config)
    fields = {
        **stored.fingerprint_fields,
        **{f"amg.{key}": value for key, value in config.amg.model_dump(mode="json").items()},
        **{f"refilter.{key}": value for key, value in cleaning.changes().items()},
    }
    drafted = replace(
        stored,
        fingerprint=fingerprint(fields),
        fingerprint_fields=fields,
        config=config.model_dump(mode="json"),
        edition=1,
    )
    directory = RunDirectory.open(new)
    plan = Plan(
        run_directory=directory,
        stored=drafted,
        config=config,
        is_resumed=_is_there(directory, drafted),
        package_version=stored.package_version,
    )
    if not plan.is_resumed:
        directory.copy_plan_parts(source, stored)
        directory.create_plan(drafted)
    return Refilter(source, stored, plan, cleaning)


def run_refilter(work: Refilter, *, on_shard: OnShard | None = None) -> frozenset[int]:
    """Make the shards of the new run that are committed in the stored one and missing in the new.

    Args:
        work: As `plan_refilter` gives it.
        on_shard: Called after each shard with the number of its images and masks.

    Returns:
        The shards that the new run has now.

    Raises:
        StorageError: If something cannot be read or written.
    """
    directory, stored = work.plan.run_directory, work.plan.stored
    done = directory.committed(stored)
    for shard_id in sorted(work.source.committed(work.stored) - done):
        data, images, masks = _refilter_shard(work, work.source.read_shard(work.stored, shard_id))
        directory.commit_shard(stored, shard_id, data)
        done |= {shard_id}
        if on_shard is not None:
            on_shard(images, masks)
    return done


def _is_there(directory: RunDirectory, drafted: StoredPlan) -> bool:
    found = directory.read_plan()
    if found is None:
        directory.refuse_foreign()
        return False
    if found.fingerprint != drafted.fingerprint:
        raise FingerprintMismatchError(
            f"NEW must be empty or the output of the same command. Received: "
            f"{redact(directory.uri)}, the output of a run with other settings. Choose another"
        )
    return True


def _refilter_shard(work: Refilter, data: bytes) -> tuple[bytes, int, int]:
    metadata = work.plan.table_metadata
    if work.old_amg.keep_candidates or work.cleaning.changes():
        results = [_refilter_image(work, result) for result in decode_table(data)]
        masks = sum(len(result.masks) for result in results)
        return encode_table(results, metadata), len(results), masks
    # Nothing is decoded where masks are only left out.
    table = keep_masks(read_table(data), lambda rows: _passes(rows, work.plan.config.amg))
    return encode_rows(table, metadata), table.num_rows, sum(table["num_masks"].to_pylist())


def _passes(masks: MaskColumns, amg: AmgSettings) -> NDArray[np.bool_]:
    passes = passes_predicted_iou(masks.predicted_iou, amg.pred_iou_thresh)
    return passes & passes_areas(masks.area, amg, image_area=masks.image_area)


def _filter(masks: Sequence[MaskRecord], amg: AmgSettings) -> tuple[MaskRecord, ...]:
    """Leave out masks as a run does at its end; candidates all stay."""
    if amg.keep_candidates:
        return tuple(masks)
    scores = np.array([mask.predicted_iou for mask in masks], np.float32)
    areas = np.array([mask.rle.area for mask in masks], np.int64)
    passes = passes_predicted_iou(scores, amg.pred_iou_thresh)
    if masks:
        image_area = masks[0].rle.height * masks[0].rle.width
        passes &= passes_areas(areas, amg, image_area=image_area)
    return tuple(mask for mask, is_kept in zip(masks, passes, strict=True) if is_kept)


def _refilter_image(work: Refilter, result: ImageResult) -> ImageResult:
    if not result.masks or result.height is None or result.width is None:
        return result
    amg, masks = work.plan.config.amg, result.masks
    if work.old_amg.keep_candidates:
        masks = replay(masks, amg, height=result.height, width=result.width)
    masks = _filter(masks, amg)
    if work.cleaning.changes():
        masks = _filter(clean(masks, work.cleaning), amg)
    return replace(result, masks=masks)
