"""This project, as a run of `amg run --precision strict|fast` has it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.rle import rle_to_coco
from amg_pipeline.amg.scores import passes_predicted_iou, passes_stability, stability_scores
from amg_pipeline.config import load_config
from amg_pipeline.shard_runner import make_mask_generator
from benchmarks.contenders.protocol import POINTS_PER_BATCH, Task
from benchmarks.work_counter import WorkRecorder


class OurContender:
    """Implements `Contender`."""

    def __init__(self, task: Task, *, precision: str) -> None:
        settings = {
            "model": {
                "variant": task.model,
                **_given(weights=task.weights),
                "precision": precision,
                "intra_op_threads": task.threads,
            },
            "amg": {
                "points_per_side": task.points_per_side,
                "points_per_batch": POINTS_PER_BATCH,
                "crop_n_layers": task.crop_n_layers,
                **_given(
                    pred_iou_thresh=task.pred_iou_thresh,
                    stability_score_thresh=task.stability_score_thresh,
                ),
            },
        }
        self._config = load_config(settings=settings)
        self._recorder = WorkRecorder()
        # What is compiled is noted, nothing else changes: calls are looked at in `work` alone.
        with self._recorder:
            find: Any = make_mask_generator(self._config)
        self._generator = find.__self__
        self._segmenter = self._generator._segmenter
        self._embedding: Any = None
        self._scored: Any = None
        self._sam = self._segmenter._sam

    def embed(self, photo: NDArray[np.uint8]) -> None:
        """See `Contender`."""
        self._photo = photo
        (self._embedding,) = self._segmenter.encode([photo])

    def score(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """See `Contender`."""
        self._points = points
        self._scored = self._segmenter.score(self._embedding, points)
        scores: NDArray[np.float32] = self._scored.predicted_iou
        return scores

    def measure(self) -> int:
        """See `Contender`."""
        amg = self._config.amg
        passes = passes_predicted_iou(self._scored.predicted_iou, amg.pred_iou_thresh)
        prompts, outputs = np.nonzero(passes)
        batch = self._segmenter.measure(
            self._scored, prompts, outputs, stability_score_offset=amg.stability_score_offset
        )
        stability = stability_scores(batch.stable_pixels, batch.possible_pixels)
        return int(passes_stability(stability, amg.stability_score_thresh).sum())

    def logits(self) -> NDArray[np.float32]:
        """See `Contender`; by the model's own call, since the generator makes masks alone."""
        from keras import ops

        from amg_pipeline.sam.transforms import longest_side_size

        height, width = self._photo.shape[:2]
        input_h, input_w = longest_side_size(height, width, self._sam.image_encoder.img_size)
        coords = self._points * [input_w / width, input_h / height]
        labels = np.ones((len(coords), 1), np.int32)
        sparse, dense = self._sam.prompt_encoder(points=(coords[:, None], labels))
        low_res, _ = self._sam.mask_decoder(
            image_embeddings=self._embedding.features,
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        array: NDArray[np.float32] = ops.convert_to_numpy(low_res)
        return array

    def generate(self, photo: NDArray[np.uint8]) -> int:
        """See `Contender`."""
        return len(self._generator.find(photo).to_records())

    def masks(self, photo: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Find all masks of a photo as run-length encodings of COCO."""
        return [rle_to_coco(record.rle) for record in self._generator.find(photo).to_records()]

    def work(self, photo: NDArray[np.uint8], points: NDArray[np.float64]) -> dict[str, Any]:
        """See `Contender`."""
        counted: dict[str, Any] = {}
        steps = {
            "embed": lambda: self.embed(photo),
            "score": lambda: self.score(points),
            "measure": self.measure,
            "generate": lambda: self.generate(photo),
        }
        for name, step in steps.items():
            with self._recorder.counting() as calls:
                step()
            counted[name] = calls.to_json()
        return counted


def _given(**settings: Any) -> dict[str, Any]:
    """Leave out what is None, so that the model's own defaults apply."""
    return {name: value for name, value in settings.items() if value is not None}
