"""Settings as people write them: YAML, single settings that win over it, and their faults.

values = parse_document(text, RunConfig)
apply_overrides(values, ["amg.min_area=9"], example="amg.pred_iou_thresh=0.9")
config = validate(RunConfig, values)

It serves any tree of pydantic models. What cannot be used is a `ConfigError` that names the
setting, and for an unknown one the nearest that there is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from amg_pipeline.errors import ConfigError

#: YAML's reader lets a malformed date through as ValueError.
_YAML_FAULTS = (yaml.YAMLError, ValueError)

_Model = TypeVar("_Model", bound=BaseModel)


def parse_document(document: str | None, model: type[BaseModel]) -> dict[str, Any]:
    """Read a YAML document of settings; nothing in it means no settings.

    Args:
        document: The text.
        model: What is to be set, for the message.

    Raises:
        ConfigError: If it is no YAML, or no mapping.
    """
    try:
        parsed = yaml.safe_load(document or "")
    except _YAML_FAULTS as error:
        # YAML's messages draw the fault over several lines.
        reason = " ".join(str(error).split())
        raise ConfigError(f"The configuration must be valid YAML. Received: {reason}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ConfigError(
            f"The configuration must be a YAML mapping with {', '.join(model.model_fields)}. "
            f"Received: {type(parsed).__name__}"
        )
    return parsed


def apply_overrides(values: dict[str, Any], overrides: Iterable[str], *, example: str) -> None:
    """Set single settings, at any depth.

    Args:
        values: What is changed; mappings in it are replaced, and stay as they are themselves.
        overrides: `section.key=value` strings, the value in YAML.
        example: One such string, for the message.

    Raises:
        ConfigError: If one is malformed, or leads into what is no section.
    """
    for override in overrides:
        name, separator, text = override.partition("=")
        name = name.strip()
        *sections, key = path = name.split(".")
        if not separator or not all(path):
            raise ConfigError(
                f"An override must look like section.key=value, e.g. {example}. "
                f"Received: {override!r}"
            )
        section_of(values, *sections)[key] = _parse_value(name, text)


def section_of(values: dict[str, Any], *path: str) -> dict[str, Any]:
    """Open a section to be changed: a copy in its place, or an empty one where nothing is.

    Raises:
        ConfigError: If something else than a mapping is there.
    """
    for depth, name in enumerate(path, start=1):
        inside = values.get(name)
        if not isinstance(inside, dict | None):
            raise ConfigError(_no_section(".".join(path[:depth]), inside))
        values[name] = dict(inside or {})
        values = values[name]
    return values


def validate(model: type[_Model], values: Mapping[str, Any], *, also: Sequence[str] = ()) -> _Model:
    """Check settings.

    Args:
        model: What they are.
        values: As they were written.
        also: Dotted names that may be given and are no fields of the model.

    Raises:
        ConfigError: If a name is unknown, a value out of range, or something missing; says the
            first fault.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_first_fault(error, [*_names_in(model), *also])) from error


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the sections that a field of this type holds: one, or those of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)


def _parse_value(name: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except _YAML_FAULTS as error:
        raise ConfigError(
            f"The value of {name} must be valid YAML. Received: {text!r}{_quoting(name, text)}"
        ) from error


def _quoting(name: str, text: str) -> str:
    """Say how to write a text that begins with one of YAML's signs, as globs do."""
    if not text.lstrip().startswith(("*", "&", "!", "%", "@", "`")):
        return ""
    option = name.removeprefix("images.")
    if option in {"include", "exclude"}:
        return f"; quote it for YAML, as in '{name}=[\"{text.strip()}\"]', or use --{option}"
    return f"; quote it for YAML, as in '{name}=\"{text.strip()}\"'"


def _first_fault(error: ValidationError, known: Sequence[str]) -> str:
    fault = error.errors(include_url=False)[0]
    name = ".".join(map(str, fault["loc"])) or "configuration"
    match fault["type"]:
        case "extra_forbidden":
            return f"Unknown setting {name}. Did you mean {_nearest(fault['loc'], known)}?"
        case "missing" if isinstance(fault["input"], dict):
            return f"{name} must be given. Received: nothing"
        case "model_type":
            return _no_section(name, fault["input"])
        case "value_error":
            return f"{name}: {fault['msg'].removeprefix('Value error, ')}."
    return f"{name}: {fault['msg']}. Received: {fault['input']!r}"


def _no_section(name: str, received: object) -> str:
    return f"Section {name} must be a mapping. Received: {received!r}"


def _nearest(path: Sequence[str | int], known: Sequence[str]) -> str:
    """Name the valid setting that is meant: the same key elsewhere, or else the likest name."""
    *above, key = map(str, path)
    # Places in a list have numbers, which no field has.
    section = ".".join(str(part) for part in path[:-1] if isinstance(part, str))
    parted = [name.rpartition(".") for name in known]
    misplaced = ["".join(parts) for parts in parted if parts[2] == key]
    beside = [".".join([*above, parts[2]]) for parts in parted if above and parts[0] == section]
    candidates = misplaced or beside or known
    return difflib.get_close_matches(".".join([*above, key]), candidates, n=1, cutoff=0.0)[0]


def _names_in(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield above + name
        for section in sections_in(field.annotation):
            yield from _names_in(section, f"{above}{name}.")
