"""Runs that were moved aside, each to a folder of its own below `_old/`."""

from __future__ import annotations

from amg_pipeline.storage import layout
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.stored_plan import StoredPlan


def is_any(store: ObjectStore) -> bool:
    """Tell whether a complete old generation is there."""
    return any(info.key.endswith(f"/{layout.PLAN_KEY}") for info in store.list(layout.OLD_FOLDER))


def move_to_old(store: ObjectStore, plan: StoredPlan) -> str:
    """Move what belongs to a run to `_old/FP8/`; after a kill, the same call finishes it.

    Returns:
        The folder that it was moved to.
    """
    folder = _free_folder(store, plan)
    keys = [
        info.key for place in (layout.OWN_FOLDER, layout.MASKS_FOLDER) for info in store.list(place)
    ]
    if store.exists(layout.SUCCESS_KEY):
        keys.append(layout.SUCCESS_KEY)
    # The plan goes last: as long as it is there, the rest is known to be ours.
    rank = {layout.SUCCESS_KEY: 0, layout.SUMMARY_KEY: 1, layout.PLAN_KEY: 4}
    for key in sorted(keys):
        if layout.parse_edition_key(key) is not None:
            rank.setdefault(key, 3)
    for key in sorted(keys, key=lambda key: (rank.get(key, 2), key)):
        store.move(key, folder + key)
    return folder


def _free_folder(store: ObjectStore, plan: StoredPlan) -> str:
    """Find a folder without a complete old generation; one half moved is taken up again."""
    base = layout.OLD_FOLDER + layout.fingerprint_prefix(plan.fingerprint)
    folder, number = f"{base}/", 1
    while store.exists(folder + layout.PLAN_KEY):
        number += 1
        folder = f"{base}-{number}/"
    return folder
