"""Make `huggingface.safetensors.gz` and `huggingface.npz` with `transformers.SamModel`.

Run in an environment with transformers and torch:
`python tests/reference/weights/make_huggingface.py`. Nothing is downloaded; the checkpoint is what
`save_pretrained` writes.
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import (
    SamConfig,
    SamMaskDecoderConfig,
    SamModel,
    SamPromptEncoderConfig,
    SamVisionConfig,
)

HERE = Path(__file__).parent


def make_model() -> SamModel:
    """Build a small SamModel from its configuration."""
    return SamModel(
        SamConfig(
            vision_config=SamVisionConfig(
                hidden_size=12,
                output_channels=16,
                num_hidden_layers=3,
                num_attention_heads=3,
                image_size=64,
                patch_size=16,
                window_size=3,
                global_attn_indexes=[1],
                mlp_dim=24,
                num_pos_feats=8,
            ),
            prompt_encoder_config=SamPromptEncoderConfig(
                hidden_size=16, image_size=64, patch_size=16, mask_input_channels=8
            ),
            mask_decoder_config=SamMaskDecoderConfig(
                hidden_size=16, mlp_dim=24, iou_head_hidden_dim=20, iou_head_depth=4
            ),
        )
    )


def main() -> None:
    """Write both files."""
    rng = np.random.default_rng(2)
    model = make_model().eval()
    pixels = rng.integers(-16, 17, (1, 64, 64, 3)).astype(np.float32) / 8
    coords = np.array([[[10.0, 20.0], [40.5, 33.0]]], np.float32)
    labels = np.array([[1, 0]], np.int32)
    masks = rng.integers(-16, 17, (1, 1, 16, 16)).astype(np.float32)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name == "prompt_encoder.shared_embedding.positional_embedding":
                continue  # tied to shared_image_embedding
            # Few distinct values, so that the file compresses well.
            tensor.copy_(torch.from_numpy(rng.integers(-32, 33, tuple(tensor.shape)) / 64))
        embedding = model.get_image_embeddings(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        outputs = model(
            image_embeddings=embedding,
            input_points=torch.from_numpy(coords)[:, None],
            input_labels=torch.from_numpy(labels)[:, None],
            input_masks=torch.from_numpy(masks),
            multimask_output=True,
        )
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        data = (Path(folder) / "model.safetensors").read_bytes()
    (HERE / "huggingface.safetensors.gz").write_bytes(gzip.compress(data, 9, mtime=0))
    np.savez_compressed(
        HERE / "huggingface.npz",
        pixels=pixels,
        coords=coords,
        labels=labels,
        masks=masks,
        embedding=embedding.numpy().transpose(0, 2, 3, 1),
        logits=outputs.pred_masks.numpy()[:, 0],
        iou=outputs.iou_scores.numpy()[:, 0],
    )


if __name__ == "__main__":
    main()
