"""One shard from start to commit, without Ray: load, generate, make the table, put it.

Lowest first: `fault_kinds` and `failed_images` (what a fault means, and the row that an image has
for it), `refusals` (whether a store means an image or the caller), `mask_generator` (the model, as
far as a runner knows it), `turns` (who has it), `beside_model` (what goes on while the model
works), `stored_rows` (what is committed already) and `runner`.
"""

from amg_pipeline.shard_runner.fault_kinds import is_device_fault
from amg_pipeline.shard_runner.mask_generator import (
    FoundMasks,
    MaskGenerator,
    make_mask_generator,
)
from amg_pipeline.shard_runner.runner import ImageLoader, ShardRunner

__all__ = [
    "FoundMasks",
    "ImageLoader",
    "MaskGenerator",
    "ShardRunner",
    "is_device_fault",
    "make_mask_generator",
]
