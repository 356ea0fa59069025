"""A `tiny` so small that a test can train it."""

from __future__ import annotations

from dataclasses import replace

from amg_pipeline.sam.presets import PRESETS

SMALL = replace(
    PRESETS["tiny"],
    img_size=32,
    patch_size=16,
    embed_dim=8,
    depth=1,
    num_heads=1,
    global_attn_indexes=(0,),
    out_chans=16,
    mask_in_chans=4,
    mlp_dim=8,
    iou_head_hidden_dim=8,
)
