"""Trains a SAM: `SceneTrainer` is the Keras model to compile and fit; `batches` has its food."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from amg_pipeline.sam.mask_decoder import MaskDecoder
from amg_pipeline.sam.model import SAM
from amg_pipeline.training.cells import labels_by_cell, upscale_cells
from amg_pipeline.training.grouping import GroupingHead, grouping_loss
from amg_pipeline.training.losses import (
    best_output_loss,
    coarsest_levels,
    dice_losses,
    focal_losses,
    mask_ious,
    weighted_mean,
)

_FOCAL_WEIGHT = 10.0
_SINGLE_MASK_WEIGHT = 0.25
#: Squared errors of scores are small beside the masks' losses. The paper weighs them once, but
#: trains far longer.
_SCORE_WEIGHT = 4.0
#: Of masks under a click that another one was drawn for: large regions lie under nearly every
#: click, and an output that knows nothing else is lost for all others.
_UNMEANT_WEIGHT = 0.35
_SLACK = 0.05


class SceneTrainer(keras.Model):
    """Wraps a SAM for `compile` and `fit`, on any backend.

    Inputs are a dictionary of `image` `(B, S, S, 3)` in 0 to 255 at the model's own size, and what
    is asked about it:

    - prompts: `coords` `(B, P, 2, 2)` XY and `labels` `(B, P, 2)`, with the targets `label_maps`
      uint8 `(B, L, 4 H, 4 W)`, `target_ids` uint8 `(B, P, L)` and `meant_levels` int32 `(B, P)`.
      With `cells` int32 `(B, N)`, flat indices into the embedding grid, masks are made and compared
      in these cells only: a good estimate of the loss at a part of its cost.
    - groups: `clicks` int32 `(B, Q)` and `pixels` int32 `(B, K)`, with the targets `click_ids`
      uint8 `(B, Q, L)` and `pixel_ids` uint8 `(B, L, K)`; see `GroupingHead`.

    Of a prompt, the masks of all levels that it may mean are targets, the one that is meant before
    the others; each is matched with the output that fits it best, and that output learns from it,
    the others next to nothing. The single-mask output learns the coarsest one. The IoU head learns
    each output's IoU with the one mask that is meant: it cannot know which, so it learns to expect
    more of the outputs that are meant more often.

    Args:
        sam: The model that is trained in place.
    """

    def __init__(self, sam: SAM, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sam = sam
        self.grouping = GroupingHead(sam.mask_decoder, name="grouping")
        self.best_iou = keras.metrics.Mean(name="best_iou")
        self.top_iou = keras.metrics.Mean(name="top_iou")
        self.score_error = keras.metrics.Mean(name="score_error")
        self.group_iou = keras.metrics.Mean(name="group_iou")
        self.built = True

    def follow_trainable(self) -> None:
        """Do nothing: what is trainable stays so; see `SAMTrainer`."""

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        features = self.sam.image_encoder(self.sam.preprocess(inputs["image"]), training=training)
        outputs = {}
        if "clicks" in inputs:
            outputs["groups"] = self.grouping(features, inputs["clicks"], inputs["pixels"])
        if "coords" in inputs:
            outputs.update(self._answer(features, inputs))
        return outputs

    def _answer(self, features: Any, inputs: dict[str, Any]) -> dict[str, Any]:
        """Run the prompts: logits `(B * P, M, 16 N)` by cell, and predicted IoU `(B * P, M)`."""
        prompts = inputs["coords"].shape[1]
        coords = ops.reshape(inputs["coords"], (-1, 2, 2))
        labels = ops.reshape(inputs["labels"], (-1, 2))
        normalized = (ops.cast(coords, "float32") + 0.5) / self.sam.image_encoder.img_size
        sparse = self.sam.prompt_encoder.embed_normalized_points(normalized, labels)
        _, dense = self.sam.prompt_encoder()
        decoder = self.sam.mask_decoder
        tokens, image = decoder.transformer(
            ops.repeat(features, prompts, axis=0) + dense,
            self.sam.prompt_encoder.get_dense_pe(),
            _with_learned_tokens(decoder, sparse),
        )
        if "cells" in inputs:
            cells = ops.repeat(inputs["cells"], prompts, axis=0)
            image = ops.take_along_axis(image, ops.expand_dims(cells, -1), axis=1)
        upscaled = upscale_cells(decoder, image)
        flat = ops.reshape(upscaled, (-1, 16 * image.shape[1], upscaled.shape[-1]))
        logits = ops.matmul(decoder.mask_weights(tokens), ops.transpose(flat, (0, 2, 1)))
        return {"logits": logits, "iou": decoder.predict_iou(tokens)}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        loss = ops.convert_to_tensor(0.0)
        if "groups" in y_pred:
            group_loss, ious, is_target = grouping_loss(
                y_pred["groups"], y["click_ids"], y["pixel_ids"]
            )
            self.group_iou.update_state(ious, sample_weight=is_target)
            loss = loss + group_loss
        if "logits" in y_pred:
            loss = loss + self._prompt_loss(y, y_pred, x.get("cells"))
        return loss

    def _prompt_loss(self, y: dict[str, Any], y_pred: dict[str, Any], cells: Any) -> Any:
        targets, is_target = cut_targets(y, cells)
        logits = y_pred["logits"]
        losses = _FOCAL_WEIGHT * focal_losses(logits, targets) + dice_losses(logits, targets)
        ious = mask_ious(logits, targets) * ops.expand_dims(is_target, 1)
        coarsest = coarsest_levels(is_target)
        meant = ops.one_hot(ops.reshape(y["meant_levels"], (-1,)), is_target.shape[-1])
        true_iou = ops.sum(ious * ops.expand_dims(meant, 1), axis=-1)
        score_error = ops.mean(ops.square(y_pred["iou"] - ops.stop_gradient(true_iou)), axis=-1)
        score_loss = weighted_mean(score_error, ops.max(is_target, axis=-1))
        self._update_metrics(ious[:, 1:], y_pred["iou"][:, 1:], is_target, score_loss)
        return (
            best_output_loss(
                losses[:, 1:],
                is_target * (meant + _UNMEANT_WEIGHT * (1.0 - meant)),
                slack=_SLACK,
            )
            + _SINGLE_MASK_WEIGHT * weighted_mean(losses[:, 0], coarsest)
            + _SCORE_WEIGHT * score_loss
        )

    def _update_metrics(
        self, ious: Any, predicted_iou: Any, is_target: Any, score_loss: Any
    ) -> None:
        self.best_iou.update_state(ops.max(ious, axis=1), sample_weight=is_target)
        top = ops.one_hot(ops.argmax(predicted_iou, axis=-1), predicted_iou.shape[-1])
        self.top_iou.update_state(
            ops.sum(ops.max(ious, axis=-1) * top, axis=-1),
            sample_weight=ops.max(is_target, axis=-1),
        )
        self.score_error.update_state(score_loss)


def _with_learned_tokens(decoder: MaskDecoder, sparse: Any) -> Any:
    """Put the decoder's own tokens before the prompts' `(N, T, C)`."""
    learned = ops.concatenate([decoder.iou_token, decoder.mask_tokens], axis=0)
    learned = ops.broadcast_to(learned[None], (ops.shape(sparse)[0], *learned.shape))
    return ops.concatenate([learned, sparse], axis=1)


def cut_targets(targets: dict[str, Any], cells: Any = None) -> tuple[Any, Any]:
    """Cut each prompt's masks from the label maps.

    Args:
        targets: `label_maps` `(B, L, 4 H, 4 W)` and `target_ids` `(B, P, L)`, tensors.
        cells: Cells of the embedding grid `(B, N)`; None takes all, row by row.

    Returns:
        Which low-res pixels are covered, 0 or 1, float32 `(B * P, L, 16 N)`, by cell; and whether a
        prompt has a mask at a level, 0 or 1, float32 `(B * P, L)`.
    """
    ids, label_maps = targets["target_ids"], targets["label_maps"]
    blocks, levels = labels_by_cell(label_maps), label_maps.shape[1]
    if cells is not None:
        blocks = ops.take_along_axis(blocks, ops.expand_dims(cells[:, None], -1), axis=2)
    at_pixels = ops.reshape(blocks, (-1, 1, levels, 16 * blocks.shape[2]))
    is_target = ops.expand_dims(ids > 0, -1)
    covered = ops.logical_and(ops.equal(at_pixels, ops.expand_dims(ids, -1)), is_target)
    return (
        ops.reshape(ops.cast(covered, "float32"), (-1, levels, at_pixels.shape[-1])),
        ops.reshape(ops.cast(is_target, "float32"), (-1, levels)),
    )
