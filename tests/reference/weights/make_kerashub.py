"""Make `kerashub.weights.h5.gz` and `kerashub.npz` with KerasHub's SAM.

Run in an environment with keras-hub: `python tests/reference/weights/make_kerashub.py`. The
checkpoint is what `save_to_preset` writes.
"""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import numpy as np
from keras import ops
from keras_hub.layers import SAMMaskDecoder, SAMPromptEncoder
from keras_hub.models import SAMBackbone, ViTDetBackbone

HERE = Path(__file__).parent
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def make_backbone() -> SAMBackbone:
    """Build a small backbone with all its variables."""
    decoder = SAMMaskDecoder(
        hidden_size=16,
        num_layers=2,
        intermediate_dim=24,
        num_heads=8,
        embedding_dim=16,
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=20,
    )
    decoder.build()
    return SAMBackbone(
        image_encoder=ViTDetBackbone(
            hidden_size=12,
            num_layers=3,
            intermediate_dim=24,
            num_heads=3,
            global_attention_layer_indices=[1],
            image_shape=(64, 64, 3),
            patch_size=16,
            num_output_channels=16,
            window_size=3,
        ),
        prompt_encoder=SAMPromptEncoder(
            hidden_size=16,
            image_embedding_size=(4, 4),
            input_image_size=(64, 64),
            mask_in_channels=8,
        ),
        mask_decoder=decoder,
    )


def main() -> None:
    """Write both files."""
    rng = np.random.default_rng(3)
    backbone = make_backbone()
    for variable in (*backbone.variables, *backbone.mask_decoder.variables):
        # Few distinct values, so that the file compresses well.
        variable.assign(rng.integers(-32, 33, tuple(variable.shape)) / 64)
    pixels = rng.integers(-16, 17, (1, 64, 64, 3)).astype(np.float32) / 8
    coords = np.array([[[10.0, 20.0], [40.5, 33.0]]], np.float32)
    labels = np.array([[1, 0]], np.int32)
    masks = rng.integers(-16, 17, (1, 1, 16, 16)).astype(np.float32)
    # KerasHub's encoder normalises its input itself.
    embedding = backbone.image_encoder(pixels * IMAGENET_STD + IMAGENET_MEAN)
    prompts = backbone.prompt_encoder(
        # KerasHub leaves the padding point to the caller.
        points=np.concatenate([coords, np.zeros((1, 1, 2), np.float32)], axis=1),
        labels=np.concatenate([labels, [[-1]]], axis=1).astype(np.float32),
        boxes=np.zeros((1, 0, 2, 2), np.float32),
        masks=masks.transpose(0, 2, 3, 1)[:, None],
    )
    outputs = backbone.mask_decoder(
        image_embeddings=embedding,
        prompt_dense_positional_embeddings=prompts["prompt_dense_positional_embeddings"],
        prompt_sparse_embeddings=prompts["prompt_sparse_embeddings"],
        prompt_dense_embeddings=prompts["prompt_dense_embeddings"],
    )
    with tempfile.TemporaryDirectory() as folder:
        backbone.save_to_preset(folder)
        data = (Path(folder) / "model.weights.h5").read_bytes()
    (HERE / "kerashub.weights.h5.gz").write_bytes(gzip.compress(data, 9, mtime=0))
    np.savez_compressed(
        HERE / "kerashub.npz",
        pixels=pixels,
        coords=coords,
        labels=labels,
        masks=masks,
        embedding=ops.convert_to_numpy(embedding),
        # KerasHub returns the single mask too.
        logits=ops.convert_to_numpy(outputs["masks"])[:, 1:],
        iou=ops.convert_to_numpy(outputs["iou_pred"])[:, 1:],
    )


if __name__ == "__main__":
    main()
