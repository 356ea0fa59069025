"""Weights files of SAM, read and written: no torch, no network, and nothing in a file is executed.

| module | concept |
|---|---|
| `tensors` | a tensor of a file, read when it is needed |
| `pickle_machine`, `torch_zip`, `torch_pickle` | official `.pth` files |
| `torch_writer` | the way back to `.pth` |
| `safetensors_file` | the safetensors format |
| `keras_h5` | what Keras saves, and KerasHub |
| `name_tables`, `names` | everybody's names and layouts, in terms of the official ones |
| `architecture` | sizes of a SAM, and the tensors that they imply |
| `source`, `checkpoint` | any path or URI, opened as official tensors |
| `variables` | into and out of a model |
| `saving`, `conversion`, `official` | what `amg weights` does |

Importing this package imports neither Keras nor a backend.
"""

from __future__ import annotations

from amg_pipeline.sam.weights.conversion import WeightsDescription, convert, inspect
from amg_pipeline.sam.weights.official import OFFICIAL_WEIGHTS, cached_weights, fetch
from amg_pipeline.sam.weights.saving import save_weights
from amg_pipeline.sam.weights.source import weights_sha256
from amg_pipeline.sam.weights.variables import load_weights

__all__ = [
    "OFFICIAL_WEIGHTS",
    "WeightsDescription",
    "cached_weights",
    "convert",
    "fetch",
    "inspect",
    "load_weights",
    "save_weights",
    "weights_sha256",
]
