"""Which settings of a stored run can be changed without the model, and why others can't.

The result has to be the one of a fresh run. What is derived here:

* The suppression keeps the mask of the higher predicted IoU. Those above a threshold are never
  suppressed by those below it, so a tighter `pred_iou_thresh` may as well come after it.
* Between crops the smaller crop wins instead, and region clean-up ranks by "unchanged": there, a
  mask below the threshold may have suppressed one above it, which would have to come back.
* A less stable mask may have suppressed a more stable one of a lower predicted IoU; the same.
* Limits of areas come last in any case.
* Candidates are what there was before any suppression: all that follows can be done anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from amg_pipeline.config import AmgSettings, RunConfig
from amg_pipeline.errors import ConfigError

#: What follows the suppressions; of candidates it may be anything.
_AFTER_MODEL = frozenset(
    {
        "box_nms_thresh",
        "crop_nms_thresh",
        "nms_kind",
        "min_mask_region_area",
        "min_area",
        "max_area",
        "max_area_fraction",
        "keep_candidates",
    }
)
_AREAS = frozenset({"min_area", "max_area", "max_area_fraction"})
_CANDIDATES = "`amg run --set amg.keep_candidates=true` stores what it takes"


def check_exact(stored: RunConfig, asked: RunConfig) -> None:
    """Make sure that a run with other settings can be had from the masks of a stored one.

    Args:
        stored: The settings that the masks were found with.
        asked: Those wanted; OUTPUT and workers may be any.

    Raises:
        ConfigError: If it can't; the message has the reason for each setting.
    """
    reasons = list(_reasons(stored, asked))
    if reasons:
        raise ConfigError(
            "A stored run can be refiltered only to what a fresh run would give. Received: "
            + "; ".join(reasons)
        )


def _reasons(stored: RunConfig, asked: RunConfig) -> Iterator[str]:
    old, new = stored.model_dump(), asked.model_dump()
    for section in ("model", "images"):
        for key, value in new[section].items():
            if value != old[section][key]:
                yield f"{section}.{key} decides which masks the model finds"
    if old["output"]["shard_size"] != new["output"]["shard_size"]:
        yield "output.shard_size decides which images lie in one shard"
    for key, value in new["amg"].items():
        if value == old["amg"][key]:
            continue
        reason = _amg_reason(key, stored.amg, asked.amg)
        if reason:
            yield f"amg.{key}={value!r} ({reason})"


def _amg_reason(key: str, old: AmgSettings, new: AmgSettings) -> str | None:
    looser = _LOOSER.get(key)
    has_candidates = old.keep_candidates
    if key == "keep_candidates" and not has_candidates:
        return "the candidates were not stored"
    if looser is not None and looser(getattr(old, key), getattr(new, key)):
        if has_candidates and key in _AREAS:
            return None
        return f"looser than the stored {getattr(old, key)!r}: more masks than were stored"
    if key in _AREAS or (has_candidates and key in {*_AFTER_MODEL, *_LOOSER}):
        return None
    if key == "pred_iou_thresh":
        if old.crop_n_layers:
            return f"between crops, the better mask need not have won; {_CANDIDATES}"
        if old.min_mask_region_area:
            return f"after region clean-up, the better mask need not have won; {_CANDIDATES}"
        return None
    if key in _AFTER_MODEL or key in _LOOSER:
        return f"masks that were suppressed might have to come back; {_CANDIDATES}"
    return "it decides which masks the model finds"


def _is_wider(old: Any, new: Any) -> bool:
    """Compare upper limits, of which None is none."""
    return old is not None and (new is None or new > old)


#: Tells for a setting whether the new value lets more masks through than the old one.
_LOOSER: dict[str, Callable[[Any, Any], bool]] = {
    "pred_iou_thresh": lambda old, new: new < old,
    "stability_score_thresh": lambda old, new: new < old,
    "min_area": lambda old, new: new < old,
    "max_area": _is_wider,
    "max_area_fraction": _is_wider,
}
