"""Exports a SAM as a SavedModel that runs without this package, e.g. in TensorFlow Serving.

The endpoints, their inputs being given by name or in this order:

- `serve(image, point_coords, point_labels, mask_input, has_mask_input, original_size,
  multimask_output)`: the whole call.
- `encode(image)`: the image encoder alone; gives `image_embedding`.
- `decode(image_embedding, point_coords, point_labels, mask_input, has_mask_input, image_size,
  original_size, multimask_output)`: the rest.

Inputs, batch sizes, numbers of points and image sizes being free:

- `image`: uint8 `(B, H, W, 3)` RGB. Eight bits are what an image holds and what the resize is exact
  for; floats would be four times as many bytes to send.
- `point_coords`: float32 `(P, N, 2)`, XY in pixels of the image. `P` is `B`, or any number for an
  image of batch 1.
- `point_labels`: int32 `(P, N)`: 1 foreground, 0 background, 2 and 3 a box's top left and bottom
  right corner, -1 no point.
- `mask_input`: float32 `(P or 1, 1, h, w)`, low-res logits of an earlier call, and
  `has_mask_input`: float32 `(P or 1,)`, 0 where there are none and zeros stand in for them.
- `image_size`: int32 `(height, width)` of the image that was encoded.
- `original_size`: int32 `(height, width)` to which masks are brought.
- `multimask_output`: bool scalar, three masks or one.

Outputs of `serve` and `decode` are those of the model's own call: `masks` bool, `iou_predictions`
and `low_res_logits` float32.

A graph has one number of tokens for all prompts. Where no label of the batch is -1 or a corner, the
padding point that the model adds to points without a box is added here too; where prompts differ in
number of points or mix points and boxes, the caller fills up with the label -1.

Source: names and meaning follow `SamOnnxModel` of the reference, which exports `decode`. It leaves
the padding point to the caller, takes coordinates of the model frame, labels as float32, and always
gives all four masks.
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.prompt_encoder import LABEL_BACKGROUND, LABEL_FOREGROUND
from amg_pipeline.sam.transforms import longest_side_size, scale_coordinates

if TYPE_CHECKING:
    from amg_pipeline.sam.model import SAM


def export_saved_model(
    model: SAM, filepath: str | PathLike[str], *, verbose: bool | None = None
) -> None:
    """Write a SavedModel with the endpoints `serve` (the default), `encode` and `decode`.

    Args:
        model: A built model; the export holds its weights as they are now.
        filepath: Folder to write.
        verbose: Whether the endpoints are printed; None is Keras's default, True.

    Raises:
        ConfigError: If Keras runs on another backend than TensorFlow, whose graphs alone can leave
            the size of images open.
    """
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ConfigError(
            "A SavedModel is exported on the TensorFlow backend. "
            f"Received: {backend!r}; save the weights and export from a process with "
            "KERAS_BACKEND=tensorflow"
        )
    endpoints = _Endpoints(model)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", endpoints.serve, endpoints.serve_signature())
    archive.add_endpoint("encode", endpoints.encode, [endpoints.image_spec()])
    archive.add_endpoint("decode", endpoints.decode, endpoints.decode_signature())
    archive.write_out(filepath, verbose=True if verbose is None else verbose)


class _Endpoints:
    """The functions that are traced; their argument names are those of the endpoints' inputs."""

    def __init__(self, model: SAM) -> None:
        self._model = model

    def serve(
        self,
        image: Any,
        point_coords: Any,
        point_labels: Any,
        mask_input: Any,
        has_mask_input: Any,
        original_size: Any,
        multimask_output: Any,
    ) -> dict[str, Any]:
        return self.decode(
            self.encode(image)["image_embedding"],
            point_coords,
            point_labels,
            mask_input,
            has_mask_input,
            ops.stack(ops.shape(image)[1:3]),
            original_size,
            multimask_output,
        )

    def encode(self, image: Any) -> dict[str, Any]:
        pixels = self._model.preprocess(image)
        embedding = self._model.image_encoder(pixels, training=False)
        return {"image_embedding": ops.cast(embedding, "float32")}

    def decode(
        self,
        image_embedding: Any,
        point_coords: Any,
        point_labels: Any,
        mask_input: Any,
        has_mask_input: Any,
        image_size: Any,
        original_size: Any,
        multimask_output: Any,
    ) -> dict[str, Any]:
        model, decoder = self._model, self._model.mask_decoder
        height, width = image_size[0], image_size[1]
        input_size = longest_side_size(height, width, model.image_encoder.img_size)
        coords, labels = _with_padding_where_needed(
            scale_coordinates(point_coords, (height, width), input_size), point_labels
        )
        logits, iou_predictions = decoder(
            image_embeddings=image_embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=model.prompt_encoder.embed_points(coords, labels),
            dense_prompt_embeddings=self._dense_prompts(mask_input, has_mask_input),
            multimask_output=multimask_output,
        )
        masks = model.postprocess_masks(logits, input_size, original_size)
        return {
            "masks": masks > model.mask_threshold,
            "iou_predictions": iou_predictions,
            "low_res_logits": logits,
        }

    def _dense_prompts(self, mask_input: Any, has_mask_input: Any) -> Any:
        prompt_encoder = self._model.prompt_encoder
        has_mask = ops.reshape(has_mask_input > 0.0, (-1, 1, 1, 1))
        _, without_mask = prompt_encoder()
        return ops.where(has_mask, prompt_encoder.embed_masks(mask_input), without_mask)

    def image_spec(self) -> keras.InputSpec:
        return _spec("image", (None, None, None, 3), "uint8")

    def serve_signature(self) -> list[keras.InputSpec]:
        return [self.image_spec(), *self._prompt_specs(), *_output_specs()]

    def decode_signature(self) -> list[keras.InputSpec]:
        encoder = self._model.image_encoder
        embedding = (None, *encoder.grid_size, encoder.out_chans)
        return [
            _spec("image_embedding", embedding, "float32"),
            *self._prompt_specs(),
            _spec("image_size", (2,), "int32"),
            *_output_specs(),
        ]

    def _prompt_specs(self) -> list[keras.InputSpec]:
        mask_shape = (None, 1, *self._model.prompt_encoder.mask_input_size)
        return [
            _spec("point_coords", (None, None, 2), "float32"),
            _spec("point_labels", (None, None), "int32"),
            _spec("mask_input", mask_shape, "float32"),
            _spec("has_mask_input", (None,), "float32"),
        ]


def _output_specs() -> list[keras.InputSpec]:
    return [_spec("original_size", (2,), "int32"), _spec("multimask_output", (), "bool")]


def _spec(name: str, shape: tuple[int | None, ...], dtype: str) -> keras.InputSpec:
    return keras.InputSpec(shape=shape, dtype=dtype, name=name)


def _with_padding_where_needed(coords: Any, labels: Any) -> tuple[Any, Any]:
    """Add the padding point of points without a box, as many columns as needed: one or none."""
    is_click = ops.logical_or(labels == LABEL_FOREGROUND, labels == LABEL_BACKGROUND)
    count = ops.shape(labels)[1]
    columns = ops.cast(ops.logical_and(ops.all(is_click), count > 0), "int32")
    padding = ops.zeros((ops.shape(labels)[0], columns), dtype="float32")
    return (
        ops.concatenate([coords, ops.stack([padding, padding], axis=-1)], axis=1),
        ops.concatenate([labels, ops.cast(padding, "int32") - 1], axis=1),
    )
