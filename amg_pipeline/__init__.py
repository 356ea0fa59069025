"""Automatic mask generation with a Segment Anything Model, from a folder to a cluster.

The public names load on first use, so that importing the package costs nothing and a process
without a model never imports Keras:

    from amg_pipeline import SAM, AutomaticMaskGenerator, load_masks
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amg_pipeline.amg.generator import AutomaticMaskGenerator
    from amg_pipeline.report.show import show_masks
    from amg_pipeline.sam.model import SAM
    from amg_pipeline.storage.mask_table import load_masks

__version__ = "0.1.0"
__all__ = ["SAM", "AutomaticMaskGenerator", "__version__", "load_masks", "show_masks"]

#: Where each public name lives (PEP 562).
_HOMES = {
    "SAM": "amg_pipeline.sam.model",
    "AutomaticMaskGenerator": "amg_pipeline.amg.generator",
    "load_masks": "amg_pipeline.storage.mask_table",
    "show_masks": "amg_pipeline.report.show",
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
