"""What `amg train` trains, on what, and how: a YAML file, validated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from amg_pipeline.config.documents import apply_overrides, parse_document, validate
from amg_pipeline.config.settings import Backend, Fraction, Section, Variant

PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
SourceFormat = Literal["coco", "sa1b", "run", "label-maps", "mask-folders", "labelme", "synthetic"]


class TrainedModelSettings(Section):
    """The model that the training starts from."""

    variant: Variant = "tiny"
    #: Checkpoint path or URI; None means the packaged weights, which only `tiny` has.
    weights: str | None = None
    backend: Backend = "tensorflow"
    #: `mixed_bfloat16` for accelerators that have it.
    precision: Literal["float32", "mixed_bfloat16"] = "float32"


class SourceSettings(Section):
    """Labelled images of one place."""

    format: SourceFormat = "coco"
    #: Folder or file of the annotations; of a run its output; for `synthetic` a number of scenes.
    path: str | PositiveInt
    #: Where the images are, where that is not beside the annotations.
    images: str | None = None


class DataSettings(Section):
    """What is trained on and what is measured on."""

    train: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    #: Measured after each epoch; none by default.
    valid: tuple[SourceSettings, ...] = ()


class PromptSettings(Section):
    """What is asked of the model."""

    #: Prompts of an image in one step.
    per_image: PositiveInt = 16
    #: Rounds of prompting; after the first, each adds a click where the mask is wrong.
    rounds: Annotated[int, Field(ge=1, le=16)] = 3
    #: Share of the prompts that are noisy boxes; the others are clicks.
    box_share: Fraction = 0.2
    #: Whether further rounds show the last mask; None: unless the model ignores mask prompts.
    mask_prompts: bool | None = None
    #: Masks of a smaller share of the image are not asked for.
    min_area: Fraction = 0.0


class AugmentationSettings(Section):
    """How views differ from their images; see `training.views.Augmentation`."""

    mirrored: Fraction = 0.5
    turned: Fraction = 0.24
    cropped: Fraction = 0.6
    least_crop: PositiveFraction = 0.4
    oblong: Fraction = 0.5
    least_zoom: PositiveFraction = 1.0
    recoloured: Fraction = 1.0


class FreezingSettings(Section):
    """Which part of the model is trained."""

    #: Last blocks of the image encoder that are trained; or from which epoch on how many.
    trained_blocks: NonNegativeInt | dict[NonNegativeInt, NonNegativeInt] = 0
    #: Rank of adapters on the attention projections, which are then all that is trained; 0: none.
    lora_rank: NonNegativeInt = 0
    lora_where: Literal["all", "encoder", "decoder"] = "all"
    #: Views of each image that are embedded once, where the encoder stays as it is; 0: none.
    cached_views: NonNegativeInt = 6
    #: Most memory for the embeddings of a data set; fewer views are embedded where it is not enough
    #: for all, none where it is not enough for one of each image.
    cached_bytes: PositiveInt = 4 * 2**30

    @field_validator("trained_blocks")
    @classmethod
    def _check_blocks(cls, value: int | dict[int, int]) -> int | dict[int, int]:
        if isinstance(value, dict) and 0 not in value:
            raise ValueError("must say from epoch 0 on how many blocks are trained")
        return value

    @property
    def is_encoder_fixed(self) -> bool:
        """Whether embeddings stay what they are."""
        if self.lora_rank:
            return self.lora_where == "decoder"
        blocks = self.trained_blocks
        return not any(blocks.values()) if isinstance(blocks, dict) else blocks == 0


class OptimizationSettings(Section):
    """AdamW, its learning rate, and how long."""

    epochs: PositiveInt = 10
    #: Steps of an epoch; one pass over the images by default.
    steps_per_epoch: PositiveInt | None = None
    #: Images of a step.
    batch_size: PositiveInt = 4
    learning_rate: PositiveFloat = 5e-4
    #: Steps in which the learning rate rises.
    warm_up_steps: PositiveInt = 20
    #: Share of the steps, at the end, in which it falls to zero.
    cool_down: Fraction = 0.5
    weight_decay: NonNegativeFloat = 0.01
    #: Greatest norm of all gradients together; 0 for any.
    clip_norm: NonNegativeFloat = 1.0
    #: Ratio of an encoder block's learning rate to the next one's.
    layer_decay: PositiveFraction = 1.0
    seed: NonNegativeInt = 0
    #: Whether XLA compiles the step: minutes at first, faster steps then.
    xla: bool = True
    #: Whether all devices of this machine take part, each with its share of a step's images; with
    #: the JAX backend.
    data_parallel: bool = False


class TrainConfig(Section):
    """All settings of one training."""

    model: TrainedModelSettings = TrainedModelSettings()
    data: DataSettings
    prompts: PromptSettings = PromptSettings()
    augmentation: AugmentationSettings | None = AugmentationSettings()
    freezing: FreezingSettings = FreezingSettings()
    optimization: OptimizationSettings = OptimizationSettings()
    #: Folder of the weights, checkpoint, log and curves.
    output: str
    #: Steps between checkpoints; what a kill costs at most.
    checkpoint_steps: PositiveInt = 50
    #: Whether a log for TensorBoard is written.
    tensorboard: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if "://" in self.output:
            raise ValueError(f"output must be a folder of this machine. Received: {self.output}")
        return self

    def dependencies(self) -> dict[str, Any]:
        """Give what the trained weights depend on, but for the images."""
        return self.model_dump(exclude={"data", "output", "checkpoint_steps", "tensorboard"})


def load_train_config(document: str, *, overrides: Iterable[str] = ()) -> TrainConfig:
    """Read and check a training's settings.

    Args:
        document: YAML text.
        overrides: `key=value` or `section.key=value`, the value in YAML; they win.

    Raises:
        ConfigError: If the YAML is no mapping, a key is unknown or a value is out of range.
    """
    values = parse_document(document, TrainConfig)
    apply_overrides(values, overrides, example="optimization.epochs=5")
    return validate(TrainConfig, values)


def settings_text(settings: Mapping[str, Any]) -> str:
    """Write settings so that equal ones are equal text."""
    return yaml.safe_dump(dict(settings), sort_keys=True)
