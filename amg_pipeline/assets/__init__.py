"""What ships inside the package: the weights of `tiny`, and photos to try it on."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent

#: Sample photos; `LICENSES.md` beside them says where each is from.
PHOTOS_FOLDER = _FOLDER / "photos"

_WEIGHTS_FILES = {"tiny": "tiny.safetensors"}


def packaged_weights(variant: str) -> str | None:
    """Give the path of a variant's packaged weights, or None if it has none.

    Args:
        variant: A name of `amg_pipeline.config.VARIANTS`.
    """
    name = _WEIGHTS_FILES.get(variant)
    return None if name is None else str(_FOLDER / name)
