"""From YAML and overrides to the settings of a run: which value wins.

Values resolve, lowest first, as: the field's default, the model's own AMG defaults, a YAML file,
`key=value` overrides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amg_pipeline.config.documents import apply_overrides, parse_document, section_of, validate
from amg_pipeline.config.settings import AmgSettings, ModelSettings, RunConfig
from amg_pipeline.errors import ConfigError

#: What differs from the reference's defaults, by model variant.
_AMG_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # The packaged model scores itself lower and has softer edges than the published ones.
    "tiny": {"pred_iou_thresh": 0.33, "stability_score_thresh": 0.8},
}

#: Named settings, chosen by `settings: NAME` in the amg section; single keys still win over them.
NAMED_AMG_SETTINGS: Mapping[str, Mapping[str, Any]] = {
    # SA-1B's recipe (paper, appendix B): 32 x 32, then 16 x 16 and 8 x 8 points per crop. The rule
    # that drops masks of at least 95 % of the image is the paper's and not in the released code.
    "sa1b": {
        "points_per_side": 32,
        "pred_iou_thresh": 0.88,
        "stability_score_thresh": 0.95,
        "box_nms_thresh": 0.7,
        "crop_n_layers": 2,
        "crop_nms_thresh": 0.7,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": 100,
        "max_area_fraction": 0.95,
    },
}


def amg_settings(variant: str | None = None, **settings: Any) -> AmgSettings:
    """Build AMG settings from a model's defaults and the caller's own values.

    Args:
        variant: The model whose defaults apply; None or an unknown name for the reference's.
        **settings: Fields of `AmgSettings`, and `settings` with a name of `NAMED_AMG_SETTINGS`.

    Raises:
        ConfigError: If a name is unknown or a value is out of range.
    """
    return _validate({"amg": _with_amg_defaults(variant, settings)}).amg


def load_config(
    document: str | None = None,
    *,
    overrides: Iterable[str] = (),
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> RunConfig:
    """Resolve a run's settings.

    Args:
        document: YAML text with the sections of `RunConfig`.
        overrides: `section.key=value` strings, the value in YAML; they win over all else.
        settings: Values by section and key that win over `document`, for the command line's
            own options.

    Returns:
        The validated settings, the model's AMG defaults filled in.

    Raises:
        ConfigError: If the YAML is no mapping, a key is unknown or a value is out of range.
    """
    values = parse_document(document, RunConfig)
    for section, given in (settings or {}).items():
        section_of(values, section).update(given)
    apply_overrides(values, overrides, example="amg.pred_iou_thresh=0.9")
    variant = section_of(values, "model").get("variant", ModelSettings().variant)
    values["amg"] = _with_amg_defaults(variant, section_of(values, "amg"))
    return _validate(values)


def _with_amg_defaults(variant: object, values: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(values)
    name = own.pop("settings", None)
    if name is not None and str(name) not in NAMED_AMG_SETTINGS:
        raise ConfigError(
            f"amg.settings must be one of {', '.join(NAMED_AMG_SETTINGS)}. Received: {name!r}"
        )
    named = NAMED_AMG_SETTINGS[name] if name is not None else {}
    return {**_AMG_DEFAULTS.get(str(variant), {}), **named, **own}


def _validate(values: Mapping[str, Any]) -> RunConfig:
    return validate(RunConfig, values, also=("amg.settings",))
