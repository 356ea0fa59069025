"""What `amg weights inspect` and `amg weights convert` do."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights.architecture import (
    SamArchitecture,
    expected_shapes,
    of_metadata,
    of_shapes,
)
from amg_pipeline.sam.weights.checkpoint import (
    OpenedWeights,
    leftovers,
    open_weights,
    require_fit,
)
from amg_pipeline.sam.weights.official import OFFICIAL_WEIGHTS, cached_weights
from amg_pipeline.sam.weights.saving import (
    STATE_DICT_ENDINGS,
    ending_of,
    save_weights,
    write_state_dict,
)
from amg_pipeline.sam.weights.source import (
    Source,
    packaged,
    shown,
    source_bytes,
    source_sha256,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsDescription:
    """What a weights file holds.

    Attributes:
        source: Where it lies, without credentials.
        format: `pth`, `safetensors`, `huggingface`, `kerashub`, `weights.h5` or `keras`.
        variant: `tiny`, `vit_b`, `vit_l`, `vit_h`, or `custom` for other sizes; None if the
            tensors do not tell.
        architecture: The sizes, under the layers' argument names; empty if they do not tell.
        dtypes: Stored types.
        num_tensors: Tensors in the file.
        num_parameters: Values of those that belong to a SAM, the fixed Fourier matrix included.
        sha256: Digest, as in a run's fingerprint.
        size_bytes: Size of the file or files.
        missing: Official names that a model of this architecture needs and the file lacks.
        left_over: Names in the file that such a model has no place for, or of another shape.
    """

    source: str
    format: str
    variant: str | None
    architecture: dict[str, Any]
    dtypes: tuple[str, ...]
    num_tensors: int
    num_parameters: int
    sha256: str
    size_bytes: int
    missing: tuple[str, ...]
    left_over: tuple[str, ...]


def inspect(source: Source) -> WeightsDescription:
    """Describe weights without building a model.

    Args:
        source: A variant's name, or the path or URI of a checkpoint.

    Raises:
        ConfigError: If a variant is named that has no packaged weights and was not fetched.
        WeightsError: If the file is unreadable, unsafe, or no SAM's.
    """
    source = _resolve(source)
    with open_weights(source) as opened:
        tensors = opened.translation.tensors
        architecture = _architecture_or_none(opened)
        expected = expected_shapes(architecture) if architecture else opened.shapes
        misshapen = (
            name
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        )
        left_over = (*(tensor.name for tensor in leftovers(opened, expected)), *misshapen)
        return WeightsDescription(
            source=shown(source),
            format=opened.format,
            variant=(architecture.variant or "custom") if architecture else None,
            architecture=asdict(architecture) if architecture else {},
            dtypes=tuple(sorted({t.dtype for t in opened.checkpoint.tensors.values()})),
            num_tensors=len(opened.checkpoint.tensors),
            num_parameters=sum(tensor.size for tensor in tensors.values()),
            sha256=source_sha256(source),
            size_bytes=source_bytes(source),
            missing=tuple(name for name in expected if name not in tensors),
            left_over=left_over,
        )


def convert(source: Source, destination: Source) -> None:
    """Bring weights into another format.

    Args:
        source: A variant's name (packaged or fetched weights), or the path or URI of a checkpoint.
        destination: Path or URI; its ending picks the format as in `save_weights`. State dicts are
            float32.

    Raises:
        ConfigError: If the destination's ending is unknown, or a variant has no weights here.
        WeightsError: If the source is unreadable, unsafe, or not exactly a SAM's.
    """
    ending = ending_of(destination)
    source = _resolve(source)
    with open_weights(source) as opened:
        architecture = _architecture(opened)
        tensors = require_fit(opened, expected_shapes(architecture), source)
        if ending in STATE_DICT_ENDINGS:
            write_state_dict(tensors, architecture, destination)
            return
    from amg_pipeline.sam.weights.variables import load_weights

    model = build_model(architecture)
    load_weights(model, source)
    save_weights(model, destination)


def build_model(architecture: SamArchitecture) -> Any:
    """Make a `SAM` of the given sizes with random weights. Imports Keras."""
    from amg_pipeline.sam import (
        SAM,
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        TwoWayTransformer,
    )

    a = architecture
    return SAM(
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
            use_abs_pos=a.use_abs_pos,
            use_rel_pos=a.use_rel_pos,
            window_size=a.window_size,
            global_attn_indexes=a.global_attn_indexes,
            name="image_encoder",
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=a.out_chans,
            image_embedding_size=(a.grid_size, a.grid_size),
            input_image_size=(a.img_size, a.img_size),
            mask_in_chans=a.mask_in_chans,
            name="prompt_encoder",
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=a.out_chans,
            transformer=TwoWayTransformer(
                depth=a.decoder_depth,
                embedding_dim=a.out_chans,
                num_heads=a.decoder_num_heads,
                mlp_dim=a.mlp_dim,
                attention_downsample_rate=a.attention_downsample_rate,
                name="transformer",
            ),
            num_multimask_outputs=a.num_multimask_outputs,
            iou_head_depth=a.iou_head_depth,
            iou_head_hidden_dim=a.iou_head_hidden_dim,
            name="mask_decoder",
        ),
        variant=a.variant,
    )


def _architecture(opened: OpenedWeights) -> SamArchitecture:
    return of_metadata(opened.checkpoint.metadata) or of_shapes(opened.shapes)


def _architecture_or_none(opened: OpenedWeights) -> SamArchitecture | None:
    try:
        return _architecture(opened)
    except WeightsError:
        return None


def _resolve(source: Source) -> Source:
    name = os.fspath(source)
    if name not in PRESETS:
        return source
    if name in OFFICIAL_WEIGHTS:
        return cached_weights(name)
    return packaged(name)
