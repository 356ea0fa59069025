"""The addresses of a run: its input, its output, and its model's weights."""

from __future__ import annotations

from amg_pipeline.config import RunConfig
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.uris import absolute_uri, has_credential, redact

#: The variant whose weights the package brings.
_PACKAGED_VARIANT = "tiny"


def with_absolute_addresses(config: RunConfig) -> RunConfig:
    """Free addresses of the working directory, which differs between drivers and workers."""

    def absolute(uri: str | None) -> str | None:
        return absolute_uri(uri) if uri else uri

    return config.model_copy(
        update={
            "model": config.model.model_copy(update={"weights": absolute(config.model.weights)}),
            "images": config.images.model_copy(update={"input": absolute(config.images.input)}),
            "output": config.output.model_copy(update={"uri": absolute(config.output.uri)}),
        }
    )


def check_addresses(config: RunConfig) -> None:
    """Make sure that a run has its addresses, and that a plan may keep them for all to read.

    Raises:
        ConfigError: If one is missing or holds a credential.
    """
    for name, value in (("INPUT", config.images.input), ("OUTPUT", config.output.uri)):
        if not value:
            raise ConfigError(f"{name} must be a path or URI. Received: nothing")
        _refuse_credential(name, value)
    _refuse_credential("model.weights", config.model.weights or "")
    variant = config.model.variant
    if config.model.weights is None and variant != _PACKAGED_VARIANT:
        raise ConfigError(
            f"model.weights must name a checkpoint for {variant}. Received: none. "
            f"Get the official one with `amg weights fetch {variant}`, or use the packaged "
            f"{_PACKAGED_VARIANT}"
        )


def _refuse_credential(name: str, uri: str) -> None:
    if has_credential(uri):
        raise ConfigError(
            f"{name} must hold no password and no signature, because a plan keeps addresses for "
            f"all to read. Received: one in {redact(uri)}. Give credentials by environment "
            "variables or by the store's own configuration file"
        )
