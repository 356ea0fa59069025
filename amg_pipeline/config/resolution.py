"""From YAML and overrides to settings: which value wins, and what is said of a wrong one.

Values resolve, lowest first, as: the field's default, the model's own AMG defaults, a YAML file,
`key=value` overrides. An unknown key or a value out of range is a `ConfigError` that names the
nearest valid key.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from amg_pipeline.config.settings import AmgSettings, ModelSettings, RunConfig
from amg_pipeline.errors import ConfigError

#: YAML's reader lets a malformed date through as ValueError.
_YAML_FAULTS = (yaml.YAMLError, ValueError)

_Model = TypeVar("_Model", bound=BaseModel)

#: What differs from the reference's defaults, by model variant.
_AMG_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # The packaged model scores itself lower and has softer edges than the published ones.
    "tiny": {"pred_iou_thresh": 0.27, "stability_score_thresh": 0.75},
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
    return _validate(AmgSettings, _with_amg_defaults(variant, settings), "amg")


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
    merged = _parse_document(document)
    for section in RunConfig.model_fields:
        _section_of(merged, section)
    for section, values in (settings or {}).items():
        _section_of(merged, section).update(values)
    for override in overrides:
        section, key, value = _parse_override(override)
        _section_of(merged, section)[key] = value
    variant = merged["model"].get("variant", ModelSettings().variant)
    merged["amg"] = _with_amg_defaults(variant, merged["amg"])
    return _validate(RunConfig, merged, "")


def _parse_document(document: str | None) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(document) if document else None
    except _YAML_FAULTS as error:
        # YAML's messages draw the fault over several lines.
        reason = " ".join(str(error).split())
        raise ConfigError(f"The configuration must be valid YAML. Received: {reason}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ConfigError(
            "The configuration must be a YAML mapping of sections "
            f"({', '.join(RunConfig.model_fields)}). Received: {type(parsed).__name__}"
        )
    return parsed


def _parse_override(override: str) -> tuple[str, str, Any]:
    name, separator, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not separator or not dot or not key:
        raise ConfigError(
            "An override must look like section.key=value, e.g. amg.pred_iou_thresh=0.9. "
            f"Received: {override!r}"
        )
    try:
        return section, key, yaml.safe_load(text)
    except _YAML_FAULTS as error:
        raise ConfigError(
            f"The value of {name} must be valid YAML. Received: {text!r}{_quoting(name, text)}"
        ) from error


def _quoting(name: str, text: str) -> str:
    """Say how to write a text that begins with one of YAML's signs, as globs do."""
    if not text.lstrip().startswith(("*", "&", "!", "%", "@", "`")):
        return ""
    option = name.strip().removeprefix("images.")
    if option in {"include", "exclude"}:
        return f"; quote it for YAML, as in '{name}=[\"{text.strip()}\"]', or use --{option}"
    return f"; quote it for YAML, as in '{name}=\"{text.strip()}\"'"


def _with_amg_defaults(variant: object, values: Mapping[str, Any]) -> dict[str, Any]:
    own = dict(values)
    name = own.pop("settings", None)
    if name is not None and str(name) not in NAMED_AMG_SETTINGS:
        raise ConfigError(
            f"amg.settings must be one of {', '.join(NAMED_AMG_SETTINGS)}. Received: {name!r}"
        )
    named = NAMED_AMG_SETTINGS[name] if name is not None else {}
    return {**_AMG_DEFAULTS.get(str(variant), {}), **named, **own}


def _section_of(merged: dict[str, Any], section: str) -> dict[str, Any]:
    values = merged.get(section)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"Section {section} must be a mapping. Received: {values!r}")
    copy = dict(values)
    merged[section] = copy
    return copy


def _validate(model: type[_Model], values: Mapping[str, Any], prefix: str) -> _Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_first_fault(error, prefix)) from error


def _first_fault(error: ValidationError, prefix: str) -> str:
    fault = error.errors(include_url=False)[0]
    path = [prefix, *map(str, fault["loc"])] if prefix else [*map(str, fault["loc"])]
    name = ".".join(path)
    if fault["type"] == "extra_forbidden":
        return f"Unknown setting {name}.{_nearest(path)}"
    message = fault["msg"].removeprefix("Value error, ")
    received = "" if fault["type"] == "value_error" else f" Received: {fault['input']!r}"
    return f"{name or 'configuration'}: {message}.{received}"


def _nearest(path: list[str]) -> str:
    """Name the valid setting that is meant: the same key elsewhere, or else the likest name."""
    name = ".".join(path)
    known = _known_names()
    misplaced = [other for other in known if other.rpartition(".")[2] == path[-1]]
    beside = [other for other in known if "." in name and other.startswith(f"{path[0]}.")]
    candidates = misplaced or beside or known
    match = difflib.get_close_matches(name, candidates, n=1, cutoff=0.0)
    return f" Did you mean {match[0]}?"


def _known_names() -> list[str]:
    names = [*RunConfig.model_fields, "amg.settings"]
    for section, field in RunConfig.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {})
        names.extend(f"{section}.{key}" for key in keys)
    return names
