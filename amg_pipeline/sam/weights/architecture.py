"""The sizes of a SAM, told from the shapes of its tensors or from a model, and what they imply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.presets import PRESETS, Preset

Shape = tuple[int, ...]

#: Dense layers of the heads that turn a mask token into weights; fixed in the reference.
_HYPERNETWORK_DEPTH = 3

#: No size of a SAM comes near.
_LARGEST_SIZE = 2**16

#: Key of our entry in the header of a safetensors file.
METADATA_KEY = "amg_pipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class SamArchitecture:
    """Everything that decides names and shapes of a SAM's tensors, under the layers' names."""

    img_size: int
    patch_size: int
    in_chans: int = 3
    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    use_abs_pos: bool = True
    use_rel_pos: bool = True
    window_size: int
    global_attn_indexes: tuple[int, ...]
    out_chans: int
    mask_in_chans: int = 16
    decoder_depth: int = 2
    #: Not visible in any shape.
    decoder_num_heads: int = 8
    mlp_dim: int
    attention_downsample_rate: int = 2
    num_multimask_outputs: int = 3
    iou_head_depth: int = 3
    iou_head_hidden_dim: int

    def __post_init__(self) -> None:
        """Refuse sizes that no file of weights can mean, before anything is counted up to them."""
        for field in fields(self):
            value = getattr(self, field.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(isinstance(number, (int, float)) for number in numbers):
                raise ValueError(f"{field.name} must be numbers. Received: {value!r}"[:200])
            if not all(0 <= number <= _LARGEST_SIZE for number in numbers):
                raise ValueError(f"{field.name} must be sane. Received: {value!r}"[:200])
        if 0 in (self.patch_size, self.num_heads, self.attention_downsample_rate):
            raise ValueError("patch_size, num_heads and attention_downsample_rate must be positive")

    @property
    def grid_size(self) -> int:
        """Side of the embedding grid."""
        return self.img_size // self.patch_size

    @property
    def variant(self) -> str | None:
        """The preset that has these sizes, if one has."""
        return next((name for name in PRESETS if of_preset(PRESETS[name]) == self), None)

    def to_json(self) -> str:
        """Write the sizes as one flat JSON object, with the variant's name or null."""
        return json.dumps({"variant": self.variant, **asdict(self)}, sort_keys=True)


def of_preset(preset: Preset) -> SamArchitecture:
    """Give the architecture of a preset."""
    return SamArchitecture(**{name: getattr(preset, name) for name in preset.__dataclass_fields__})


def of_metadata(metadata: Mapping[str, str]) -> SamArchitecture | None:
    """Read the architecture from a safetensors header, if this package wrote it there."""
    try:
        flat = json.loads(metadata[METADATA_KEY])
        names = {field.name for field in fields(SamArchitecture)}
        known = {name: value for name, value in flat.items() if name in names}
        known["global_attn_indexes"] = tuple(known["global_attn_indexes"])
        return SamArchitecture(**known)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def of_model(model: Any) -> SamArchitecture:
    """Read the architecture of a built `SAM` from its parts."""
    encoder, decoder = model.image_encoder, model.mask_decoder
    transformer = decoder.transformer
    return SamArchitecture(
        img_size=encoder.img_size,
        patch_size=encoder.patch_size,
        in_chans=encoder.in_chans,
        embed_dim=encoder.embed_dim,
        depth=encoder.depth,
        num_heads=encoder.num_heads,
        mlp_ratio=float(encoder.mlp_ratio),
        qkv_bias=encoder.qkv_bias,
        use_abs_pos=encoder.use_abs_pos,
        use_rel_pos=encoder.use_rel_pos,
        window_size=encoder.window_size,
        global_attn_indexes=tuple(encoder.global_attn_indexes),
        out_chans=encoder.out_chans,
        mask_in_chans=model.prompt_encoder.mask_in_chans,
        decoder_depth=transformer.depth,
        decoder_num_heads=transformer.num_heads,
        mlp_dim=transformer.mlp_dim,
        attention_downsample_rate=transformer.attention_downsample_rate,
        num_multimask_outputs=decoder.num_multimask_outputs,
        iou_head_depth=decoder.iou_head_depth,
        iou_head_hidden_dim=decoder.iou_head_hidden_dim,
    )


def of_shapes(shapes: Mapping[str, Shape]) -> SamArchitecture:
    """Tell the architecture from the shapes of official tensors.

    The decoder's number of heads leaves no trace in shapes and is taken as 8. A file without
    relative positions does not tell heads and windows either and is refused.

    Args:
        shapes: By official name, in PyTorch's layout.

    Raises:
        WeightsError: If a tensor that is needed to tell is missing or of another rank.
    """
    try:
        return _guess(shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise WeightsError(
            "Expected the tensors of a whole SAM with absolute and relative positions. "
            f"Received: names or shapes that do not tell its sizes ({error})"
        ) from None


def _guess(shapes: Mapping[str, Shape]) -> SamArchitecture:
    embed_dim, in_chans, patch_size, _ = shapes["image_encoder.patch_embed.proj.weight"]
    _, grid, _, _ = shapes["image_encoder.pos_embed"]
    depth = _count(shapes, r"image_encoder\.blocks\.(\d+)\.norm1\.weight")
    rel_pos = [shapes[f"image_encoder.blocks.{i}.attn.rel_pos_h"] for i in range(depth)]
    sides = [(length + 1) // 2 for length, _ in rel_pos]
    windows = sorted({side for side in sides if side != grid})
    mlp_width, _ = shapes["image_encoder.blocks.0.mlp.lin1.weight"]
    internal, out_chans = shapes["mask_decoder.transformer.final_attn_token_to_image.q_proj.weight"]
    mask_tokens, _ = shapes["mask_decoder.mask_tokens.weight"]
    mask_in_chans, *_ = shapes["prompt_encoder.mask_downscaling.3.weight"]
    mlp_dim, _ = shapes["mask_decoder.transformer.layers.0.mlp.lin1.weight"]
    iou_hidden, _ = shapes["mask_decoder.iou_prediction_head.layers.0.weight"]
    return SamArchitecture(
        img_size=grid * patch_size,
        patch_size=patch_size,
        in_chans=in_chans,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=embed_dim // rel_pos[0][1],
        mlp_ratio=mlp_width / embed_dim,
        qkv_bias="image_encoder.blocks.0.attn.qkv.bias" in shapes,
        window_size=windows[0] if windows else 0,
        global_attn_indexes=tuple(i for i, side in enumerate(sides) if side == grid),
        out_chans=out_chans,
        mask_in_chans=mask_in_chans,
        decoder_depth=_count(shapes, r"mask_decoder\.transformer\.layers\.(\d+)\.norm1\.weight"),
        mlp_dim=mlp_dim,
        attention_downsample_rate=out_chans // internal,
        num_multimask_outputs=mask_tokens - 1,
        iou_head_depth=_count(shapes, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\.weight"),
        iou_head_hidden_dim=iou_hidden,
    )


def _count(shapes: Mapping[str, Shape], pattern: str) -> int:
    return sum(1 for name in shapes if re.fullmatch(pattern, name))


def expected_shapes(architecture: SamArchitecture) -> dict[str, Shape]:
    """List the tensors of a SAM: official names with PyTorch's shapes, in the official order."""
    return dict(
        (
            *_image_encoder(architecture),
            *_prompt_encoder(architecture),
            *_mask_decoder(architecture),
        )
    )


def _image_encoder(a: SamArchitecture) -> Iterator[tuple[str, Shape]]:
    root, width = "image_encoder", a.embed_dim
    if a.use_abs_pos:
        yield f"{root}.pos_embed", (1, a.grid_size, a.grid_size, width)
    yield f"{root}.patch_embed.proj.weight", (width, a.in_chans, a.patch_size, a.patch_size)
    yield f"{root}.patch_embed.proj.bias", (width,)
    for i in range(a.depth):
        block = f"{root}.blocks.{i}"
        is_global = i in a.global_attn_indexes or not a.window_size
        positions = 2 * (a.grid_size if is_global else a.window_size) - 1
        yield from _norm(f"{block}.norm1", width)
        if a.use_rel_pos:
            yield f"{block}.attn.rel_pos_h", (positions, width // a.num_heads)
            yield f"{block}.attn.rel_pos_w", (positions, width // a.num_heads)
        yield from _dense(f"{block}.attn.qkv", width, 3 * width, bias=a.qkv_bias)
        yield from _dense(f"{block}.attn.proj", width, width)
        yield from _norm(f"{block}.norm2", width)
        yield from _dense(f"{block}.mlp.lin1", width, int(width * a.mlp_ratio))
        yield from _dense(f"{block}.mlp.lin2", int(width * a.mlp_ratio), width)
    yield f"{root}.neck.0.weight", (a.out_chans, width, 1, 1)
    yield from _norm(f"{root}.neck.1", a.out_chans)
    yield f"{root}.neck.2.weight", (a.out_chans, a.out_chans, 3, 3)
    yield from _norm(f"{root}.neck.3", a.out_chans)


def _prompt_encoder(a: SamArchitecture) -> Iterator[tuple[str, Shape]]:
    root, width = "prompt_encoder", a.out_chans
    yield f"{root}.pe_layer.positional_encoding_gaussian_matrix", (2, width // 2)
    for i in range(4):
        yield f"{root}.point_embeddings.{i}.weight", (1, width)
    yield f"{root}.not_a_point_embed.weight", (1, width)
    masks = f"{root}.mask_downscaling"
    yield from _convolution(f"{masks}.0", 1, a.mask_in_chans // 4, 2)
    yield from _norm(f"{masks}.1", a.mask_in_chans // 4)
    yield from _convolution(f"{masks}.3", a.mask_in_chans // 4, a.mask_in_chans, 2)
    yield from _norm(f"{masks}.4", a.mask_in_chans)
    yield from _convolution(f"{masks}.6", a.mask_in_chans, width, 1)
    yield f"{root}.no_mask_embed.weight", (1, width)


def _mask_decoder(a: SamArchitecture) -> Iterator[tuple[str, Shape]]:
    root, width = "mask_decoder", a.out_chans
    inner = width // a.attention_downsample_rate
    for i in range(a.decoder_depth):
        layer = f"{root}.transformer.layers.{i}"
        yield from _attention(f"{layer}.self_attn", width, width)
        yield from _norm(f"{layer}.norm1", width)
        yield from _attention(f"{layer}.cross_attn_token_to_image", width, inner)
        yield from _norm(f"{layer}.norm2", width)
        yield from _dense(f"{layer}.mlp.lin1", width, a.mlp_dim)
        yield from _dense(f"{layer}.mlp.lin2", a.mlp_dim, width)
        yield from _norm(f"{layer}.norm3", width)
        yield from _norm(f"{layer}.norm4", width)
        yield from _attention(f"{layer}.cross_attn_image_to_token", width, inner)
    yield from _attention(f"{root}.transformer.final_attn_token_to_image", width, inner)
    yield from _norm(f"{root}.transformer.norm_final_attn", width)
    yield f"{root}.iou_token.weight", (1, width)
    num_tokens = a.num_multimask_outputs + 1
    yield f"{root}.mask_tokens.weight", (num_tokens, width)
    # PyTorch lays transposed convolutions out as (in, out, height, width).
    yield f"{root}.output_upscaling.0.weight", (width, width // 4, 2, 2)
    yield f"{root}.output_upscaling.0.bias", (width // 4,)
    yield from _norm(f"{root}.output_upscaling.1", width // 4)
    yield f"{root}.output_upscaling.3.weight", (width // 4, width // 8, 2, 2)
    yield f"{root}.output_upscaling.3.bias", (width // 8,)
    for i in range(num_tokens):
        widths = (width,) * _HYPERNETWORK_DEPTH + (width // 8,)
        yield from _perceptron(f"{root}.output_hypernetworks_mlps.{i}", widths)
    hidden = (a.iou_head_hidden_dim,) * (a.iou_head_depth - 1)
    yield from _perceptron(f"{root}.iou_prediction_head", (width, *hidden, num_tokens))


def _perceptron(name: str, widths: tuple[int, ...]) -> Iterator[tuple[str, Shape]]:
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        yield from _dense(f"{name}.layers.{i}", inputs, outputs)


def _attention(name: str, width: int, inner: int) -> Iterator[tuple[str, Shape]]:
    for projection in ("q_proj", "k_proj", "v_proj"):
        yield from _dense(f"{name}.{projection}", width, inner)
    yield from _dense(f"{name}.out_proj", inner, width)


def _dense(
    name: str, inputs: int, outputs: int, *, bias: bool = True
) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _convolution(name: str, inputs: int, outputs: int, size: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (outputs, inputs, size, size)
    yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)
