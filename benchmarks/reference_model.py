"""The reference implementation with any sizes and any weights: `segment-anything-py` in PyTorch.

Only importable where the reference is installed (`requirements/parity.txt`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from amg_pipeline.sam.presets import PIXEL_MEAN, PIXEL_STD
from amg_pipeline.sam.weights.architecture import SamArchitecture
from benchmarks.prompt_cases import PromptCase


def build_reference(
    architecture: SamArchitecture, state_dict: Mapping[str, NDArray[np.float32]]
) -> Sam:
    """Build the reference's model of the given sizes, every tensor filled from `state_dict`."""
    a = architecture
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=a.img_size,
            patch_size=a.patch_size,
            in_chans=a.in_chans,
            embed_dim=a.embed_dim,
            depth=a.depth,
            num_heads=a.num_heads,
            mlp_ratio=a.mlp_ratio,
            out_chans=a.out_chans,
            qkv_bias=a.qkv_bias,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_abs_pos=a.use_abs_pos,
            use_rel_pos=a.use_rel_pos,
            window_size=a.window_size,
            global_attn_indexes=a.global_attn_indexes,
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=a.out_chans,
            image_embedding_size=(a.grid_size, a.grid_size),
            input_image_size=(a.img_size, a.img_size),
            mask_in_chans=a.mask_in_chans,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=a.out_chans,
            transformer=TwoWayTransformer(
                depth=a.decoder_depth,
                embedding_dim=a.out_chans,
                num_heads=a.decoder_num_heads,
                mlp_dim=a.mlp_dim,
                attention_downsample_rate=a.attention_downsample_rate,
            ),
            num_multimask_outputs=a.num_multimask_outputs,
            iou_head_depth=a.iou_head_depth,
            iou_head_hidden_dim=a.iou_head_hidden_dim,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )
    # Assigned, not copied: the largest model would not fit twice. Strict: no name is left over.
    tensors = {name: torch.from_numpy(values) for name, values in state_dict.items()}
    sam.load_state_dict(tensors, strict=True, assign=True)
    return sam.eval().requires_grad_(False)


def num_values(sam: Sam) -> int:
    """Count the values of all parameters; the Fourier matrix is a buffer and not among them."""
    return sum(parameter.numel() for parameter in sam.parameters())


def run_reference(
    sam: Sam, image: NDArray[np.uint8], cases: list[PromptCase]
) -> tuple[NDArray[np.float32], dict[str, dict[str, NDArray[Any]]]]:
    """Run prompts on one image.

    Returns:
        The image embedding `(1, H, W, C)`, and by case: `low_res_logits`, `iou_predictions` and
        `logits` of full size, `(P, K, ...)`.
    """
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    embedding = predictor.get_image_embedding().permute(0, 2, 3, 1).numpy()
    return embedding, {case.name: _predict(predictor, case) for case in cases}


@torch.no_grad()
def _predict(predictor: SamPredictor, case: PromptCase) -> dict[str, NDArray[Any]]:
    sam = predictor.model
    sparse, dense = _embed_prompts(predictor, case)
    low_res_logits, iou = sam.mask_decoder(
        image_embeddings=predictor.features,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=case.multimask_output,
    )
    logits = sam.postprocess_masks(low_res_logits, predictor.input_size, predictor.original_size)
    return {
        "low_res_logits": low_res_logits.numpy(),
        "iou_predictions": iou.numpy(),
        "logits": logits.numpy(),
    }


def _embed_prompts(predictor: SamPredictor, case: PromptCase) -> tuple[Any, Any]:
    encoder, transform = predictor.model.prompt_encoder, predictor.transform
    points = boxes = masks = None
    if case.points is not None:
        coords = transform.apply_coords(case.points[0], predictor.original_size)
        points = (
            torch.as_tensor(coords, dtype=torch.float),
            torch.as_tensor(case.points[1], dtype=torch.int),
        )
    if case.boxes is not None:
        boxes = torch.as_tensor(
            transform.apply_boxes(case.boxes.reshape(-1, 4), predictor.original_size),
            dtype=torch.float,
        )
    if case.masks is not None:
        masks = torch.as_tensor(case.masks, dtype=torch.float)
    if case.boxes is None or case.boxes.shape[1] == 1:
        return encoder(points=points, boxes=boxes, masks=masks)
    # The reference takes one box a prompt. Of several, each adds its two tokens.
    one_box = boxes[: len(case.boxes)]
    sparse, dense = encoder(points=points, boxes=one_box, masks=masks)
    corners = encoder._embed_boxes(boxes).reshape(len(case.boxes), -1, sparse.shape[-1])
    return torch.cat([sparse[:, :-2], corners], dim=1), dense
