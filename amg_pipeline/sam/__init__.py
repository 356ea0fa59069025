"""The Segment Anything Model in Keras 3: its parts, and the whole as `SAM`.

The names load on first use, so that importing this package (for its presets, say) does not
import Keras.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amg_pipeline.sam.image_encoder import ImageEncoderViT
    from amg_pipeline.sam.mask_decoder import MaskDecoder
    from amg_pipeline.sam.model import SAM
    from amg_pipeline.sam.prompt_encoder import PromptEncoder
    from amg_pipeline.sam.transformer import TwoWayTransformer

__all__ = ["SAM", "ImageEncoderViT", "MaskDecoder", "PromptEncoder", "TwoWayTransformer"]

#: Where each public name lives (PEP 562).
_HOMES = {
    "SAM": "amg_pipeline.sam.model",
    "ImageEncoderViT": "amg_pipeline.sam.image_encoder",
    "MaskDecoder": "amg_pipeline.sam.mask_decoder",
    "PromptEncoder": "amg_pipeline.sam.prompt_encoder",
    "TwoWayTransformer": "amg_pipeline.sam.transformer",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
