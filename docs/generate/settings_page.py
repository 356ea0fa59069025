"""The page of all settings, made from the models that check them."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from amg_pipeline.config import RunConfig
from amg_pipeline.config.documents import sections_in
from amg_pipeline.config.fingerprints import fingerprint_fields
from amg_pipeline.config.resolution import _AMG_DEFAULTS, NAMED_AMG_SETTINGS
from amg_pipeline.evaluation.settings import EvaluationConfig
from amg_pipeline.training.settings import AugmentationSettings, TrainConfig
from amg_pipeline.training.views import Augmentation

_HEAD = """# Settings

Every setting of a run, made from the code that checks them. They come from the model's own defaults,
then from `--config run.yaml`, then from `--set amg.pred_iou_thresh=0.9`, which may be repeated; what
comes later wins. An unknown key is an error that names the nearest valid one. In YAML:

```yaml
model:
  variant: tiny
amg:
  points_per_side: 32
  pred_iou_thresh: 0.3
output:
  shard_size: 64
```

Settings marked **output** decide what the masks are: they are in the run's fingerprint, and a run that
was begun with other values of them is not gone on with. All others may differ from one command to the
next.
"""


def make_page() -> str:
    """Write the page in Markdown."""
    in_fingerprint = set(
        fingerprint_fields(RunConfig(), weights_sha256="0" * 64, package_version="0.0.0")
    )
    parts = [_HEAD]
    for name, field in RunConfig.model_fields.items():
        section = field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            raise TypeError(f"{name} is no section of settings: {section}")
        parts.append(f"## {name}\n\n{prose(section)}\n")
        for key, row in rows(section):
            tag = " · **output**" if f"{name}.{key}" in in_fingerprint else ""
            parts.append(_entry(f"{name}.{key}", row, tag))
        if name == "amg":
            parts.append(_other_defaults())
    parts.append(_table("Training", "amg train", TrainConfig))
    parts.append(_table("Evaluation", "amg evaluate", EvaluationConfig))
    return "\n".join(parts)


def _table(title: str, command: str, config: type[BaseModel]) -> str:
    """Describe the YAML file of another command, section by section."""
    lines = [f"## {title}\n", f"The YAML file of `{command}`.\n"]
    lines += ["| setting | values | default | |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {row['kind']} | {row['default']} | {row['meaning']} |"
        for name, row in _all_rows(config, "")
    ]
    return "\n".join(lines) + "\n"


def _all_rows(config: type[BaseModel], prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for name, row in rows(config):
        inner = list(sections_in(config.model_fields[name].annotation))
        if not inner:
            yield prefix + name, row
        for section in inner:
            yield from _all_rows(section, f"{prefix}{name}.")


def _entry(name: str, row: Mapping[str, str], tag: str) -> str:
    return (
        f"### `{name}`\n\n{row['kind']} · default {row['default']}{tag}\n\n"
        f"{row['meaning']}\n".rstrip()
        + "\n"
    )


def _other_defaults() -> str:
    """Say what differs by model, and what the names stand for that `amg.settings` takes."""
    lines = ["### Defaults of models, and named settings\n"]
    lines.append(
        "These take the place of the defaults above, for a model, or with `--set amg.settings=NAME`:\n"
    )
    lines += ["| for | settings |", "|---|---|"]
    named = {f"`settings: {name}`": values for name, values in NAMED_AMG_SETTINGS.items()}
    models = {f"model `{name}`": values for name, values in _AMG_DEFAULTS.items()}
    for label, values in (models | named).items():
        written = ", ".join(f"`{key}` {_json(value)}" for key, value in values.items())
        lines.append(f"| {label} | {written} |")
    return "\n".join(lines) + "\n"


def rows(model: type[BaseModel]) -> Iterator[tuple[str, dict[str, str]]]:
    """Describe the fields of a model: kind and limits, default, meaning."""
    schema = model.model_json_schema()
    comments = _comments(model)
    for name, field in model.model_fields.items():
        found = schema["properties"][name]
        default = "required"
        if not field.is_required():
            value = field.get_default(call_default_factory=True)
            default = "required" if value is PydanticUndefined else _json(value)
        # A reader of YAML knows None as null.
        meaning = re.sub(r"\bNone\b", "null", field.description or comments.get(name, ""))
        yield name, {"kind": kind_of(found, schema), "default": default, "meaning": meaning}


def prose(model: type[BaseModel]) -> str:
    """Give the docstring of a model without its list of attributes."""
    text = inspect.cleandoc(model.__doc__ or "")
    return text.partition("\n\nAttributes:")[0]


def kind_of(found: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Write the type and limits of a JSON schema as a reader would say them."""
    if "$ref" in found:
        return kind_of(schema["$defs"][found["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in found:
        kinds = [kind_of(choice, schema) for choice in found["anyOf"]]
        return ", or ".join(kinds)
    if "enum" in found or "const" in found:
        choices = found.get("enum", [found.get("const")])
        return "one of " + ", ".join(f"`{choice}`" for choice in choices)
    kind = found.get("type", "any value")
    if kind == "object":
        inner = found.get("additionalProperties", {})
        return f"mapping to: {kind_of(inner if isinstance(inner, dict) else {}, schema)}"
    if kind == "array":
        items = found.get("prefixItems")
        if items:
            return f"list of {len(items)}: {kind_of(items[0], schema)}"
        return f"list of: {kind_of(found.get('items', {}), schema)}"
    names = {"number": "number", "integer": "whole number", "string": "text", "null": "null"}
    return names.get(kind, "true or false" if kind == "boolean" else kind) + _limits(found)


def _limits(found: Mapping[str, Any]) -> str:
    least, most = found.get("minimum"), found.get("maximum")
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    above = found.get("exclusiveMinimum")
    if above is not None:
        start = "1 or more" if found["type"] == "integer" and above == 0 else f"above {above:g}"
        return f", {start}" + (f", at most {most:g}" if most is not None else "")
    return f", {least:g} or more" if least is not None else ""


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """Collect what stands above fields as `#:`, or below `Attributes:` in the docstring."""
    described = Augmentation if model is AugmentationSettings else model
    found = _attributes(inspect.cleandoc(described.__doc__ or ""))
    for owner in reversed(model.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        lines = textwrap.dedent(inspect.getsource(owner)).splitlines()
        (tree,) = ast.parse("\n".join(lines)).body
        for node in tree.body if isinstance(tree, ast.ClassDef) else []:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                words, at = [], node.lineno - 2
                while lines[at].strip().startswith("#:"):
                    words.insert(0, lines[at].strip()[2:].strip())
                    at -= 1
                if words:
                    found[node.target.id] = " ".join(words)
    return found


def _attributes(text: str) -> dict[str, str]:
    section = re.search(r"^Attributes:\n((?:[ ]{4}.*\n?|\n)+)", text, re.MULTILINE)
    found: dict[str, str] = {}
    name = ""
    for line in section[1].splitlines() if section else []:
        start = re.match(r"^ {4}(\w+): (.*)", line)
        if start:
            name = start[1]
            found[name] = start[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def _json(value: Any) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, float):
        return f"`{value:.6g}`"
    return f"`{json.dumps(value, default=str)}`"
