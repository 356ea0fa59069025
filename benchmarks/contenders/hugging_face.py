"""Hugging Face transformers: `SamModel` and the pipeline "mask-generation"."""

from __future__ import annotations

import re
from typing import Any

# Before anything that imports TensorFlow: PyTorch crashes when it is loaded after it.
import torch  # isort: skip

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import MaskGenerationPipeline, SamConfig, SamImageProcessor, SamModel

from amg_pipeline.sam.weights.names import official_name
from benchmarks.contenders.protocol import POINTS_PER_BATCH, Task
from benchmarks.seeded_weights import MODELS, SEED, ParityModel, draw_tensor

#: Layers of a head by the provisional names that `official_name` gives them.
_HEAD_LAYERS = {"first": "0", "inner0": "1", "last": "2"}


class HuggingFaceContender:
    """Implements `Contender`; `vit_b` alone, whose sizes are the defaults of its configuration."""

    def __init__(self, task: Task) -> None:
        torch.set_num_threads(task.threads)
        model = MODELS[task.model]
        config = SamConfig()
        encoder = config.vision_config
        if encoder.hidden_size != model.architecture.embed_dim:
            raise ValueError(f"Only vit_b is compared with Hugging Face, not {task.model}")
        self._model = SamModel(config).eval().requires_grad_(False)
        variables = self._model.state_dict()
        state = {name: _values(name, like, model) for name, like in variables.items()}
        self._model.load_state_dict(state, strict=True)
        self._processor = SamImageProcessor()
        self._pipeline = MaskGenerationPipeline(
            model=self._model, image_processor=self._processor, device="cpu"
        )
        self._task = task

    @torch.no_grad()
    def embed(self, photo: NDArray[np.uint8]) -> None:
        """See `Contender`."""
        inputs = self._processor(images=Image.fromarray(photo), return_tensors="pt")
        self._original_sizes = inputs["original_sizes"].tolist()
        self._input_sizes = inputs["reshaped_input_sizes"].tolist()
        self._features = self._model.get_image_embeddings(inputs["pixel_values"])

    @torch.no_grad()
    def score(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """See `Contender`."""
        (height, width), (input_h, input_w) = self._original_sizes[0], self._input_sizes[0]
        coords = points * np.array([input_w / width, input_h / height])
        self._outputs = self._model(
            input_points=torch.as_tensor(coords)[None, :, None],
            input_labels=torch.ones((1, len(points), 1), dtype=torch.long),
            image_embeddings=self._features,
        )
        scores: NDArray[np.float32] = self._outputs["iou_scores"][0].numpy()
        return scores

    @torch.no_grad()
    def measure(self) -> int:
        """See `Contender`."""
        height, width = self._original_sizes[0]
        masks = self._processor.post_process_masks(
            self._outputs["pred_masks"], self._original_sizes, self._input_sizes, binarize=False
        )
        rles, _, _ = self._processor.filter_masks(
            masks[0],
            self._outputs["iou_scores"][0],
            (height, width),
            [0, 0, width, height],
            self._task.pred_iou_thresh,
            self._task.stability_score_thresh,
        )
        return len(rles)

    def logits(self) -> NDArray[np.float32]:
        """See `Contender`."""
        array: NDArray[np.float32] = self._outputs["pred_masks"][0].numpy()
        return array

    def generate(self, photo: NDArray[np.uint8]) -> int:
        """See `Contender`."""
        found = self._pipeline(
            Image.fromarray(photo),
            points_per_batch=POINTS_PER_BATCH,
            points_per_crop=self._task.points_per_side,
            pred_iou_thresh=self._task.pred_iou_thresh,
            stability_score_thresh=self._task.stability_score_thresh,
        )
        return len(found["masks"])

    def work(self, photo: NDArray[np.uint8], points: NDArray[np.float64]) -> dict[str, Any]:  # noqa: ARG002
        """See `Contender`: what the reference does, so nobody needs it."""
        return {}


def _values(name: str, like: Any, model: ParityModel) -> Any:
    shape = tuple(like.shape)
    return torch.from_numpy(
        draw_tensor(_official(name), shape, seed=SEED, logit_gain=model.logit_gain)
    )


def _official(name: str) -> str:
    official = official_name("huggingface", name)
    if official is None:
        raise ValueError(f"Unknown tensor of Hugging Face's SAM: {name}")
    return re.sub(
        r"\.layers\.(first|inner0|last)\.",
        lambda match: f".layers.{_HEAD_LAYERS[match[1]]}.",
        official,
    )
