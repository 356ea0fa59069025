"""Training: fine-tuning on labelled images, and how the packaged model is made from scenes.

The public names load on first use, so that importing this package does not import Keras.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amg_pipeline.training.embedding_cache import EmbeddingCache
    from amg_pipeline.training.labelled_views import LabelledViews
    from amg_pipeline.training.prompted_batches import PromptedBatches
    from amg_pipeline.training.trainer import SAMTrainer

__all__ = ["EmbeddingCache", "LabelledViews", "PromptedBatches", "SAMTrainer"]

#: Where each public name lives (PEP 562).
_HOMES = {
    "EmbeddingCache": "amg_pipeline.training.embedding_cache",
    "LabelledViews": "amg_pipeline.training.labelled_views",
    "PromptedBatches": "amg_pipeline.training.prompted_batches",
    "SAMTrainer": "amg_pipeline.training.trainer",
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
