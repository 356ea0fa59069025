"""Fine-tunes a SAM: `SAMTrainer` is the Keras model to compile and fit.

Shapes: `B` images, `P` prompts of an image, `N` prompts of all images, `T` tokens of a prompt, `K`
outputs of the decoder (the single mask first), `L` masks that one prompt may mean, `S` side of the
low-res masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from amg_pipeline.sam.image_side import DenseImage
from amg_pipeline.sam.model import SAM
from amg_pipeline.training.cells import cells_to_grid, upscale_cells
from amg_pipeline.training.error_points import draw_error_points
from amg_pipeline.training.losses import (
    best_output_loss,
    coarsest_levels,
    dice_losses,
    focal_losses,
    mask_ious,
    weighted_mean,
)
from amg_pipeline.training.optimizer_state import rebuilt_for
from amg_pipeline.training.trainer_inputs import low_res_targets, prompt_tokens


@keras.saving.register_keras_serializable(package="amg_pipeline")
class SAMTrainer(keras.Model):
    """Wraps a SAM for `compile` and `fit`, on any backend; the SAM is trained in place.

    Inputs are the dictionary that `SAM` takes (`image` of any size, `points`, `boxes`, `masks`),
    where points and boxes may have an axis of `P` prompts after that of the images; targets are
    `{"masks": ...}` in the image's size or the low-res frame (see `low_res_targets`). Instead,
    `PromptedBatches` gives prompts of its own, and `EmbeddingCache` embeddings instead of images.

    Of a prompt's three outputs only the one that fits best learns from the mask; the single-mask
    output always does; the score head learns the IoU of every output, by squared error. After the
    first round, each further one shows the mask with the highest score, and adds a click where it
    is wrong.

    What is frozen (`trainable = False`, anywhere in the SAM) stays as it is. It may be changed
    between two calls of `fit`: the optimizer keeps what it knows of the other variables. Where
    mask prompts are not shown, what embeds them is frozen; a model that ignores them goes on to.

    Metrics are means over all prompts that mean a mask, however these are shared out in batches.

    Args:
        sam_model: The model that is trained.
        rounds: Rounds of prompting, the first one included.
        mask_prompts: Whether further rounds show the last mask's logits; None shows them unless
            the model was made to ignore mask prompts, as `tiny` is.
        focal_weight: Weight of the focal loss.
        dice_weight: Weight of the dice loss.
        single_mask_weight: Weight of both for the single-mask output.
        iou_weight: Weight of the score's squared error.

    A `loss` given to `compile` takes the place of focal and dice: a function of target and logits,
    both `(N, 1, S, S)`, or the name of one of Keras's. `{"masks": f, "ious": g}` replaces the
    score's too, `g` being a function of true and predicted IoU `(N, K)`. Of a result `(N, ...)`
    each prompt has the mean as its loss; a single number is that of all prompts, those that mean
    nothing included.

    Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A.
    """

    def __init__(
        self,
        sam_model: SAM,
        *,
        rounds: int = 3,
        mask_prompts: bool | None = None,
        focal_weight: float = 20.0,
        dice_weight: float = 1.0,
        single_mask_weight: float = 0.5,
        iou_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        # Half precision is for the SAM's layers; here it would round pixels and coordinates.
        super().__init__(**{"autocast": False, **kwargs, "dtype": "float32"})
        if rounds < 1:
            raise ValueError(f"rounds must be at least 1. Received: {rounds}")
        self.sam = sam_model
        self.rounds = rounds
        self.mask_prompts = heeds_mask_prompts(sam_model) if mask_prompts is None else mask_prompts
        self.focal_weight = focal_weight
        self.dice_weight = dice_weight
        self.single_mask_weight = single_mask_weight
        self.iou_weight = iou_weight
        self.mask_loss = keras.metrics.Mean(name="mask_loss")
        self.iou_loss = keras.metrics.Mean(name="iou_loss")
        self.best_iou = keras.metrics.Mean(name="best_iou")
        self.top_iou = keras.metrics.Mean(name="top_iou")
        self.last_iou = keras.metrics.Mean(name="last_iou") if rounds > 1 else None
        self.draws = keras.random.SeedGenerator()
        self._trained: tuple[int, ...] | None = None
        self._freeze_unused()
        self.built = True

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        """Answer the prompts as they are given: logits `(N, K, S, S)` and scores `(N, K)`."""
        coords, labels, prompts = prompt_tokens(self.sam, inputs)
        embedding = inputs.get("image_embedding")
        if embedding is None:
            pixels = self.sam.preprocess(inputs["image"])
            embedding = self.sam.image_encoder(pixels, training=training)
        if prompts is not None:
            embedding = ops.repeat(embedding, prompts, axis=0)
        answer = self._answer(embedding, coords, labels, inputs.get("masks"))
        return {**answer, "image_embedding": embedding}

    def _answer(self, embedding: Any, coords: Any, labels: Any, masks: Any) -> dict[str, Any]:
        encoder, decoder = self.sam.prompt_encoder, self.sam.mask_decoder
        _, dense = encoder(masks=masks)
        _, height, width, channels = embedding.shape
        dtype = decoder.compute_dtype
        image = DenseImage(
            ops.cast(ops.reshape(ops.add(embedding, dense), (-1, height * width, channels)), dtype),
            ops.cast(ops.reshape(encoder.get_dense_pe(), (1, height * width, channels)), dtype),
        )
        prompted = decoder.prompt_tokens(ops.cast(encoder.embed_points(coords, labels), dtype))
        tokens, attended = decoder.transformer.attend(image, prompted)
        pixels = upscale_cells(decoder, attended.features())
        pixels = ops.cast(pixels, "float32")
        pixels = ops.reshape(pixels, (-1, 16 * height * width, channels // 8))
        logits = ops.matmul(decoder.mask_weights(tokens), ops.transpose(pixels, (0, 2, 1)))
        return {
            "low_res_logits": cells_to_grid(logits, height, width),
            "iou_predictions": decoder.predict_iou(tokens),
        }

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Compare the answers of all rounds with the targets; the later rounds run here."""
        masks = y["masks"] if isinstance(y, Mapping) else y
        if masks is None:
            raise ValueError("Training needs targets: pairs (inputs, {'masks': masks}).")
        coords, labels, prompts = prompt_tokens(self.sam, x)
        targets = low_res_targets(masks, prompts, y_pred["low_res_logits"].shape[-1])
        weights = ops.cast(ops.max(targets, axis=(2, 3)) > 0.0, "float32")
        if sample_weight is not None:
            each = ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
            weights = weights * ops.repeat(each, prompts or 1, axis=0)
        answer, losses = y_pred, []
        for turn in range(self.rounds):
            if turn:
                shown = self._best_scored(answer)
                point, label = self._next_click(shown, targets, x, turn)
                coords = ops.concatenate([coords, point], axis=1)
                labels = ops.concatenate([labels, label], axis=1)
                answer = self._answer(
                    y_pred["image_embedding"],
                    coords,
                    labels,
                    shown[:, None] if self.mask_prompts else x.get("masks"),
                )
            losses.append(self._loss_of(answer, targets, weights, turn))
        return sum(losses) / self.rounds

    def _best_scored(self, answer: Mapping[str, Any]) -> Any:
        """Give the logits `(N, S, S)` of the output with the highest score of the three."""
        logits, scores = answer["low_res_logits"][:, 1:], answer["iou_predictions"][:, 1:]
        best = ops.argmax(scores, axis=1)[:, None, None, None]
        return ops.stop_gradient(ops.take_along_axis(logits, best, axis=1)[:, 0])

    def _next_click(self, shown: Any, targets: Any, x: Any, turn: int) -> tuple[Any, Any]:
        """Click where a mask and the target that it fits best differ."""
        if targets.shape[1] > 1:
            ious = mask_ious(_flat(shown[:, None]), _flat(targets))
            best = ops.argmax(ious[:, 0], axis=1)[:, None, None, None]
            targets = ops.take_along_axis(targets, best, axis=1)
        if "draws" in x:
            draws = ops.reshape(x["draws"], (-1, x["draws"].shape[-1]))[:, turn - 1]
        else:
            draws = keras.random.uniform((ops.shape(shown)[0],), seed=self.draws)
        rows, columns, label = draw_error_points(shown, targets[:, 0], draws)
        scale = self.sam.image_encoder.img_size / shown.shape[-1]
        point = ops.cast(ops.stack([columns, rows], axis=-1), "float32")
        return ((point + 0.5) * scale - 0.5)[:, None], label[:, None]

    def _loss_of(self, answer: Mapping[str, Any], targets: Any, weights: Any, turn: int) -> Any:
        logits, scores = answer["low_res_logits"], answer["iou_predictions"]
        flat, flat_targets = _flat(logits), _flat(targets)
        losses = self._mask_losses(logits, targets, flat, flat_targets)
        single = weights * coarsest_levels(ops.cast(weights > 0.0, "float32"))
        mask_loss = best_output_loss(losses[:, 1:], weights)
        mask_loss += self.single_mask_weight * weighted_mean(losses[:, 0], single)
        is_target = ops.cast(weights > 0.0, "float32")
        ious = mask_ious(flat, flat_targets) * ops.expand_dims(is_target, 1)
        true_ious = ops.stop_gradient(ops.max(ious, axis=-1))
        any_weight = ops.max(weights, axis=-1)
        iou_loss = self._score_loss(true_ious, scores, any_weight)
        prompts = ops.sum(any_weight)  # batches differ in how many of their prompts mean a mask
        self.mask_loss.update_state(mask_loss, sample_weight=prompts)
        self.iou_loss.update_state(iou_loss, sample_weight=prompts)
        self._update_ious(true_ious[:, 1:], scores[:, 1:], any_weight, turn)
        return mask_loss + self.iou_weight * iou_loss

    def _mask_losses(self, logits: Any, targets: Any, flat: Any, flat_targets: Any) -> Any:
        """Give the loss of each output against each target, `(N, K, L)`."""
        loss = self.loss.get("masks") if isinstance(self.loss, Mapping) else self.loss
        if loss is None:
            focal = self.focal_weight * focal_losses(flat, flat_targets)
            return focal + self.dice_weight * dice_losses(flat, flat_targets)
        loss, outputs = keras.losses.get(loss), range(logits.shape[1])
        columns = []
        for i in range(targets.shape[1]):
            target = targets[:, i : i + 1]
            each = [_by_prompt(loss(target, logits[:, k : k + 1]), target) for k in outputs]
            columns.append(ops.stack(each, axis=1))
        return ops.stack(columns, axis=2)

    def _score_loss(self, true_ious: Any, scores: Any, weights: Any) -> Any:
        loss = self.loss.get("ious") if isinstance(self.loss, Mapping) else None
        losses = keras.losses.get(loss or "mse")(true_ious, scores)
        return weighted_mean(_by_prompt(losses, scores), weights)

    def _update_ious(self, true_ious: Any, scores: Any, weights: Any, turn: int) -> None:
        top = ops.one_hot(ops.argmax(scores, axis=-1), scores.shape[-1])
        top_ious = ops.sum(true_ious * top, axis=-1)
        if turn == 0:
            self.best_iou.update_state(ops.max(true_ious, axis=-1), sample_weight=weights)
            self.top_iou.update_state(top_ious, sample_weight=weights)
        if self.last_iou is not None and turn == self.rounds - 1:
            self.last_iou.update_state(top_ious, sample_weight=weights)

    def get_metrics_result(self) -> dict[str, Any]:
        """Give what was measured; Keras's own mean of losses weighs every batch alike."""
        results: dict[str, Any] = super().get_metrics_result()
        if "loss" in results:
            results["loss"] = results["mask_loss"] + self.iou_weight * results["iou_loss"]
        return results

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `keras.Model.fit` does, what is trainable now."""
        self.follow_trainable()
        return super().fit(*args, **kwargs)

    def follow_trainable(self) -> None:
        """Take notice of a change of what is trainable; `fit` does so when it starts."""
        optimizer = getattr(self, "optimizer", None)
        self._freeze_unused()
        trainable = self.trainable_variables
        if not trainable:
            raise ValueError("Nothing is trainable; set trainable = True on a part of the SAM.")
        identities = tuple(id(variable) for variable in trainable)
        if self._trained not in (None, identities) and optimizer is not None:
            if optimizer.built:
                self.optimizer = rebuilt_for(optimizer, trainable)
            self.make_train_function(force=True)
        self._trained = identities

    def _freeze_unused(self) -> None:
        if self.mask_prompts and self.rounds > 1:
            return
        encoder = self.sam.prompt_encoder
        for layer in encoder.mask_downscaling:
            layer.trainable = False  # no mask prompts, no gradients
        if not heeds_mask_prompts(self.sam):
            # Any mask prompt is embedded as none is; trained alone, the latter would move away.
            encoder.no_mask_embed.trainable = False

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "sam_model": keras.saving.serialize_keras_object(self.sam),
            # Keras keeps what is trainable of whole layers only, and forgets it of their parts.
            "frozen": [i for i, v in enumerate(self.sam.variables) if not v.trainable],
            "rounds": self.rounds,
            "mask_prompts": self.mask_prompts,
            "focal_weight": self.focal_weight,
            "dice_weight": self.dice_weight,
            "single_mask_weight": self.single_mask_weight,
            "iou_weight": self.iou_weight,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SAMTrainer:
        own = {name: value for name, value in config.items() if name != "frozen"}
        own["sam_model"] = keras.saving.deserialize_keras_object(config["sam_model"])
        trainer = cls(**own)
        for index in config["frozen"]:
            trainer.sam.variables[index].trainable = False
        return trainer


def _flat(masks: Any) -> Any:
    """Join the rows of masks `(N, K, S, S)`."""
    _, count, height, width = masks.shape
    return ops.reshape(masks, (-1, count, height * width))


def _by_prompt(losses: Any, prompts: Any) -> Any:
    """Average what a loss gives, a number or `(N, ...)`, to `(N,)`; `prompts` is `(N, ...)`."""
    losses = ops.convert_to_tensor(losses)
    each = ops.mean(losses, axis=tuple(range(1, len(losses.shape)))) if losses.shape else losses
    return ops.broadcast_to(each, ops.shape(prompts)[:1])


def heeds_mask_prompts(sam: SAM) -> bool:
    """Tell whether a mask prompt changes anything, which it does not after `tiny`'s training."""
    kernel = ops.convert_to_tensor(sam.prompt_encoder.mask_downscaling[-1].kernel)
    return bool(ops.convert_to_numpy(ops.any(kernel != 0.0)))
