"""The numbers in which the variants differ; everything else is shared.

Source: `build_sam.py` of the reference for `vit_*`. `tiny` is ours: the same classes with smaller
numbers, small enough to be trained and run on a laptop without a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

#: ImageNet statistics in 0 to 255, RGB order, as every published checkpoint expects them.
PIXEL_MEAN: tuple[float, float, float] = (123.675, 116.28, 103.53)
PIXEL_STD: tuple[float, float, float] = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Sizes of one variant; the names are those of the layers' arguments."""

    img_size: int = 1024
    patch_size: int = 16
    embed_dim: int
    depth: int
    num_heads: int
    global_attn_indexes: tuple[int, ...]
    window_size: int = 14
    #: Width of image embedding, prompt tokens and mask decoder.
    out_chans: int = 256
    mask_in_chans: int = 16
    #: Hidden width of the two-way transformer's MLPs.
    mlp_dim: int = 2048
    iou_head_hidden_dim: int = 256

    @property
    def grid_size(self) -> int:
        """Side of the embedding grid."""
        return self.img_size // self.patch_size


PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        img_size=256,
        patch_size=8,
        embed_dim=96,
        depth=6,
        num_heads=4,
        global_attn_indexes=(1, 3, 5),
        window_size=8,
        out_chans=64,
        mlp_dim=256,
        iou_head_hidden_dim=64,
    ),
    "vit_b": Preset(embed_dim=768, depth=12, num_heads=12, global_attn_indexes=(2, 5, 8, 11)),
    "vit_l": Preset(embed_dim=1024, depth=24, num_heads=16, global_attn_indexes=(5, 11, 17, 23)),
    "vit_h": Preset(embed_dim=1280, depth=32, num_heads=16, global_attn_indexes=(7, 15, 23, 31)),
}
