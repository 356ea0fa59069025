"""The Segment Anything Model: preprocessing, encoders, decoder and postprocessing in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import keras
from keras import ops

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.image_encoder import ImageEncoderViT
from amg_pipeline.sam.inputs import checked_image, size_pair, split_inputs
from amg_pipeline.sam.mask_decoder import MaskDecoder
from amg_pipeline.sam.postprocess import resize_logits, resize_weights
from amg_pipeline.sam.presets import PIXEL_MEAN, PIXEL_STD, PRESETS, Preset
from amg_pipeline.sam.prompt_encoder import PromptEncoder
from amg_pipeline.sam.segmenter import SamSegmenter
from amg_pipeline.sam.transformer import TwoWayTransformer
from amg_pipeline.sam.transforms import (
    longest_side_size,
    pad_to_square,
    resize_uint8,
    scale_coordinates,
)


@keras.saving.register_keras_serializable(package="amg_pipeline")
class SAM(keras.Model):
    """Promptable segmentation of images of any size.

    Called with one dictionary:

    - `image`: `(B, H, W, 3)` RGB, uint8 or float in 0 to 255. Resized so that its longer side fills
      the model frame (as Pillow resizes 8-bit images), normalised and padded here.
    - `points`: optional `(coords, labels)`, coords `(B, N, 2)` XY in pixels of `image`, labels
      `(B, N)`: 1 foreground, 0 background.
    - `boxes`: optional `(B, M, 4)`, XYXY in pixels of `image`.
    - `masks`: optional low-res logits `(B, 1, h, w)` of an earlier call.
    - `original_size`: optional `(height, width)`, two ints or an int tensor `(2,)`: the size to
      which masks are brought; `image`'s own by default.
    - `multimask_output`: optional bool: three masks (default) or one.

    All points and boxes of one image are one prompt. An image of batch 1 may meet prompts of batch
    `P`; the image is then encoded once.

    Returns a dictionary: `masks` bool `(B, 3 or 1, height, width)`; `iou_predictions` float32
    `(B, 3 or 1)`; `low_res_logits` float32 `(B, 3 or 1, h, w)`, h and w being four times the
    embedding grid.

    Args:
        image_encoder: Embeds the image.
        prompt_encoder: Embeds prompts; its sizes must fit the image encoder's.
        mask_decoder: Predicts masks.
        pixel_mean: Mean of each RGB channel in 0 to 255.
        pixel_std: Standard deviation of each RGB channel in 0 to 255.
        mask_threshold: Logit above which a pixel is mask.
        image_format: Order of the image's channels; only `"RGB"`.
        variant: Name of the preset that this is, which chooses AMG defaults.

    Source: Kirillov et al. 2023 (arXiv:2304.02643); `Sam` and `SamPredictor` of the reference.
    """

    def __init__(
        self,
        image_encoder: ImageEncoderViT,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        pixel_mean: Sequence[float] = PIXEL_MEAN,
        pixel_std: Sequence[float] = PIXEL_STD,
        mask_threshold: float = 0.0,
        image_format: str = "RGB",
        variant: str | None = None,
        **kwargs: Any,
    ) -> None:
        # No autocast: half precision would round pixels and coordinates before they are used.
        super().__init__(autocast=False, **kwargs)
        if image_format != "RGB":
            raise ValueError(f'image_format must be "RGB". Received: {image_format!r}')
        _check_parts_fit(image_encoder, prompt_encoder, mask_decoder)
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.pixel_mean = [float(value) for value in pixel_mean]
        self.pixel_std = [float(value) for value in pixel_std]
        self.mask_threshold = float(mask_threshold)
        self.image_format = image_format
        self.variant = variant
        # Every shape is known, so a model is complete from the moment it exists.
        self.build()

    @classmethod
    def from_variant(cls, variant: str, *, weights: str | None = "default", **kwargs: Any) -> SAM:
        """Make a built model of a published or packaged size.

        Args:
            variant: `"tiny"`, `"vit_b"`, `"vit_l"` or `"vit_h"`.
            weights: Path or URI of a checkpoint in any format that `amg weights` reads.
                `"default"` loads the packaged weights where there are any (`tiny`) and is random
                otherwise; None is random always.
            **kwargs: Further arguments of `from_preset` and `SAM`, e.g. `dtype="mixed_bfloat16"`.

        Raises:
            ConfigError: If there is no such variant.
            WeightsError: If the checkpoint is unreadable or does not fit.
        """
        if variant not in PRESETS:
            raise ConfigError(f"variant must be one of {', '.join(PRESETS)}. Received: {variant!r}")
        model = cls.from_preset(PRESETS[variant], variant=variant, **kwargs)
        source = weights
        if weights == "default":
            from amg_pipeline.assets import packaged_weights

            source = packaged_weights(variant)
        if source is not None:
            from amg_pipeline.sam.weights import load_weights

            load_weights(model, source)
        return model

    @classmethod
    def from_preset(cls, preset: Preset, *, decoder_dtype: Any = None, **kwargs: Any) -> SAM:
        """Make a built model of given sizes, with random weights.

        Args:
            preset: Sizes, e.g. `dataclasses.replace(PRESETS["tiny"], img_size=512)`.
            decoder_dtype: Dtype policy of the mask decoder; `dtype`, the other parts', if None.
            **kwargs: Further arguments of `SAM`.
        """
        dtype = kwargs.get("dtype")
        return cls(**_parts_of(preset, dtype, decoder_dtype or dtype), **kwargs)

    def build(self, input_shape: Any = None) -> None:
        for part in (self.image_encoder, self.prompt_encoder, self.mask_decoder):
            if not part.built:
                part.build(None)
        self.built = True

    def __call__(self, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
        # Keras refuses ints and bools beside tensors in one argument, so the two settings in the
        # dictionary travel as arguments of their own.
        tensors, settings = split_inputs(inputs)
        outputs: dict[str, Any] = super().__call__(tensors, *args, **{**settings, **kwargs})
        return outputs

    def call(
        self,
        inputs: Mapping[str, Any],
        original_size: Any = None,
        multimask_output: bool = True,
        training: bool | None = None,
    ) -> dict[str, Any]:
        image = checked_image(inputs["image"])
        height, width = ops.shape(image)[1], ops.shape(image)[2]
        input_size = longest_side_size(height, width, self.image_encoder.img_size)
        original_size = size_pair(original_size, (height, width))
        embeddings = self.image_encoder(self.preprocess(image), training=training)
        prompts = self._encode_prompts(inputs, (height, width), input_size)
        logits, iou_predictions = self._decode(embeddings, prompts, multimask_output)
        masks = self.postprocess_masks(logits, input_size, original_size)
        return {
            "masks": masks > self.mask_threshold,
            "iou_predictions": iou_predictions,
            "low_res_logits": logits,
        }

    def preprocess(self, image: Any) -> Any:
        """Bring images to the model frame: resize the longer side, normalise, zero-pad.

        Args:
            image: `(B, H, W, 3)` RGB, uint8 or float in 0 to 255.

        Returns:
            float32 `(B, img_size, img_size, 3)`.
        """
        image = checked_image(image)
        img_size = self.image_encoder.img_size
        size = longest_side_size(ops.shape(image)[1], ops.shape(image)[2], img_size)
        if None not in image.shape[1:3] and size == tuple(image.shape[1:3]):
            pixels = ops.cast(image, "float32")
        else:
            pixels = resize_uint8(image, size)
        mean = ops.convert_to_tensor(self.pixel_mean, dtype="float32")
        std = ops.convert_to_tensor(self.pixel_std, dtype="float32")
        return pad_to_square((pixels - mean) / std, img_size)

    def postprocess_masks(self, masks: Any, input_size: Any, original_size: Any) -> Any:
        """Remove the padding of low-res logits and bring them to the image's size.

        Args:
            masks: Logits `(B, K, h, w)`.
            input_size: `(height, width)` of the image in the model frame, without padding.
            original_size: `(height, width)` of the result.

        Returns:
            Logits, float32 `(B, K, height, width)`.
        """
        img_size = self.image_encoder.img_size
        input_size = size_pair(input_size, (img_size, img_size))
        original_size = size_pair(original_size, (img_size, img_size))
        weights_y, weights_x = (
            resize_weights(masks.shape[2 + axis], img_size, input_size[axis], original_size[axis])
            for axis in (0, 1)
        )
        return resize_logits(masks, weights_y, weights_x)

    def segmenter(self, *, points_per_batch: int, encoder_batch_size: int = 1) -> SamSegmenter:
        """Give this model as the automatic mask generator drives it."""
        return SamSegmenter(
            self, points_per_batch=points_per_batch, encoder_batch_size=encoder_batch_size
        )

    def export(
        self,
        filepath: str | PathLike[str],
        format: str = "tf_saved_model",  # noqa: A002 (Keras's name)
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Export for serving; by default a SavedModel with three endpoints.

        `serve` is the whole call, `encode` the image encoder, `decode` the rest; see
        `amg_pipeline.sam.serving` for their arguments. Another format, or a signature of one's own,
        gets Keras's export of the call.
        """
        if format == "tf_saved_model" and input_signature is None:
            from amg_pipeline.sam.serving import export_saved_model

            export_saved_model(self, filepath, verbose=verbose)
            return
        super().export(
            filepath, format=format, verbose=verbose, input_signature=input_signature, **kwargs
        )

    def _encode_prompts(
        self, inputs: Mapping[str, Any], image_size: tuple[Any, Any], input_size: tuple[Any, Any]
    ) -> tuple[Any, Any]:
        points, boxes, masks = (inputs.get(key) for key in ("points", "boxes", "masks"))
        if points is not None:
            points = (scale_coordinates(points[0], image_size, input_size), points[1])
        if boxes is not None:
            boxes = scale_coordinates(boxes, image_size, input_size)
        embedded: tuple[Any, Any] = self.prompt_encoder(points=points, boxes=boxes, masks=masks)
        return embedded

    def _decode(
        self, embeddings: Any, prompts: tuple[Any, Any], multimask_output: Any
    ) -> tuple[Any, Any]:
        sparse, dense = prompts
        outputs: tuple[Any, Any] = self.mask_decoder(
            image_embeddings=embeddings,
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=_matching_batch(sparse, embeddings),
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        return outputs

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_encoder": keras.saving.serialize_keras_object(self.image_encoder),
            "prompt_encoder": keras.saving.serialize_keras_object(self.prompt_encoder),
            "mask_decoder": keras.saving.serialize_keras_object(self.mask_decoder),
            "pixel_mean": list(self.pixel_mean),
            "pixel_std": list(self.pixel_std),
            "mask_threshold": self.mask_threshold,
            "image_format": self.image_format,
            "variant": self.variant,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SAM:
        parts = {
            key: keras.saving.deserialize_keras_object(config[key])
            for key in ("image_encoder", "prompt_encoder", "mask_decoder")
        }
        return cls(**{**config, **parts})


def _parts_of(preset: Preset, dtype: Any, decoder_dtype: Any) -> dict[str, Any]:
    grid = (preset.grid_size, preset.grid_size)
    return {
        "image_encoder": ImageEncoderViT(
            img_size=preset.img_size,
            patch_size=preset.patch_size,
            embed_dim=preset.embed_dim,
            depth=preset.depth,
            num_heads=preset.num_heads,
            out_chans=preset.out_chans,
            window_size=preset.window_size,
            global_attn_indexes=preset.global_attn_indexes,
            dtype=dtype,
            name="image_encoder",
        ),
        "prompt_encoder": PromptEncoder(
            embed_dim=preset.out_chans,
            image_embedding_size=grid,
            input_image_size=(preset.img_size, preset.img_size),
            mask_in_chans=preset.mask_in_chans,
            name="prompt_encoder",
        ),
        "mask_decoder": MaskDecoder(
            transformer_dim=preset.out_chans,
            transformer=TwoWayTransformer(
                embedding_dim=preset.out_chans,
                mlp_dim=preset.mlp_dim,
                dtype=decoder_dtype,
                name="transformer",
            ),
            iou_head_hidden_dim=preset.iou_head_hidden_dim,
            dtype=decoder_dtype,
            name="mask_decoder",
        ),
    }


def _check_parts_fit(
    image_encoder: ImageEncoderViT, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder
) -> None:
    widths = (image_encoder.out_chans, prompt_encoder.embed_dim, mask_decoder.transformer_dim)
    if len(set(widths)) != 1:
        raise ValueError(
            "image_encoder.out_chans, prompt_encoder.embed_dim and mask_decoder.transformer_dim "
            f"must be equal. Received: {widths}"
        )
    expected = (image_encoder.grid_size, (image_encoder.img_size,) * 2)
    received = (prompt_encoder.image_embedding_size, prompt_encoder.input_image_size)
    if expected != received:
        raise ValueError(
            "The prompt encoder's image_embedding_size and input_image_size must be the image "
            f"encoder's: {expected}. Received: {received}"
        )


def _matching_batch(sparse: Any, embeddings: Any) -> Any:
    """Repeat a promptless batch of 1 for each image; prompts come with their own batch."""
    if sparse.shape[0] == 1 and embeddings.shape[0] != 1:
        return ops.repeat(sparse, ops.shape(embeddings)[0], axis=0)
    return sparse
