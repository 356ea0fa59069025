"""Make `official.pth.gz` and `official.npz` with the reference implementation.

Run in an environment with `segment-anything-py`, torch and torchvision:
`python tests/reference/weights/make_official.py`. The checkpoint is what `torch.save` writes.
"""

from __future__ import annotations

import gzip
import io
from functools import partial
from pathlib import Path

import numpy as np
import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

HERE = Path(__file__).parent


def make_sam() -> Sam:
    """Build a SAM whose sizes all differ where they can."""
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=64,
            patch_size=16,
            embed_dim=12,
            depth=3,
            num_heads=3,
            mlp_ratio=2,
            out_chans=16,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            qkv_bias=True,
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=16, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=8
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=16,
            transformer=TwoWayTransformer(depth=2, embedding_dim=16, num_heads=8, mlp_dim=24),
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=20,
        ),
    )


def main() -> None:
    """Write both files."""
    rng = np.random.default_rng(1)
    sam = make_sam().eval()
    with torch.no_grad():
        for tensor in sam.state_dict().values():
            # Few distinct values, so that the file compresses well.
            values = rng.integers(-32, 33, tuple(tensor.shape)) / 64
            tensor.copy_(torch.from_numpy(values))
        pixels = rng.integers(-16, 17, (1, 3, 64, 64)).astype(np.float32) / 8
        coords = np.array([[[10.0, 20.0], [40.5, 33.0]]], np.float32)
        labels = np.array([[1, 0]], np.int32)
        masks = rng.integers(-16, 17, (1, 1, 16, 16)).astype(np.float32)
        embedding = sam.image_encoder(torch.from_numpy(pixels))
        sparse, dense = sam.prompt_encoder(
            points=(torch.from_numpy(coords), torch.from_numpy(labels)),
            boxes=None,
            masks=torch.from_numpy(masks),
        )
        logits, iou = sam.mask_decoder(
            image_embeddings=embedding,
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    buffer = io.BytesIO()
    torch.save(sam.state_dict(), buffer)
    (HERE / "official.pth.gz").write_bytes(gzip.compress(buffer.getvalue(), 9, mtime=0))
    np.savez_compressed(
        HERE / "official.npz",
        pixels=pixels.transpose(0, 2, 3, 1),
        coords=coords,
        labels=labels,
        masks=masks,
        embedding=embedding.numpy().transpose(0, 2, 3, 1),
        logits=logits.numpy(),
        iou=iou.numpy(),
    )


if __name__ == "__main__":
    main()
