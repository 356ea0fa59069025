"""The sizes of a SAM that is made and run in milliseconds, with every kind of block."""

from __future__ import annotations

from amg_pipeline.sam.weights.architecture import SamArchitecture

#: Windows of 3 do not divide the grid of 4, so they are padded; the block between them is global.
SMALL = SamArchitecture(
    img_size=64,
    patch_size=16,
    embed_dim=12,
    depth=3,
    num_heads=3,
    mlp_ratio=2.0,
    window_size=3,
    global_attn_indexes=(1,),
    out_chans=16,
    mask_in_chans=8,
    mlp_dim=24,
    iou_head_hidden_dim=20,
)
