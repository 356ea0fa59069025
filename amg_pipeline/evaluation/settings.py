"""What `amg evaluate` measures, on what, and of which model: a YAML file, validated."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from amg_pipeline.config.documents import apply_overrides, parse_document, validate
from amg_pipeline.config.settings import Fraction, ModelSettings, Section


class DatasetSettings(Section):
    """People's segments."""

    format: Literal["coco", "bsds", "masks"]
    #: Folder or prefix of the images.
    images: str
    #: COCO's JSON file, or a folder or prefix of `.mat` files or PNGs.
    annotations: str
    #: Turn images upright as their EXIF orientation says.
    exif_orientation: bool = True
    #: The first annotator's segments, or those of all.
    annotator: Literal["first", "all"] = "first"
    #: Leave out segments of a smaller share of the image.
    min_area_fraction: Fraction = 0.0
    #: Only the first so many images, in order of their ids.
    limit: PositiveInt | None = None
    #: A repeatable random choice of so many images (before `limit`).
    sample: PositiveInt | None = None
    sample_seed: NonNegativeInt = 0


class ClicksSettings(Section):
    """Mean IoU after clicks."""

    #: Clicks at each segment.
    clicks: Annotated[int, Field(ge=1, le=100)] = 5
    #: Where in a region clicks fall.
    placements: Annotated[tuple[Literal["center", "random"], ...], Field(min_length=1)] = (
        "center",
        "random",
    )
    #: Of the random clicks.
    seed: NonNegativeInt = 0
    #: Segments of one image that are clicked at together.
    prompts_per_batch: PositiveInt = 16


class ProposalsSettings(Section):
    """Average recall of generated masks."""

    #: Points along one side of the grid; the paper has 64.
    points_per_side: PositiveInt = 32
    points_per_batch: PositiveInt = 64
    #: Box IoU above which the lower scored of two masks is dropped.
    box_nms_thresh: Fraction = 0.9
    stability_score_offset: Annotated[float, Field(gt=0.0)] = 1.0
    #: How many of the best proposals are taken.
    limits: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (10, 100, 1000)

    @field_validator("limits")
    @classmethod
    def _check_limits(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError(f"must ascend, received {list(value)}")
        return value


class EdgesSettings(Section):
    """Edges by the recipe of the SAM paper, compared as BSDS500 does."""

    points_per_side: PositiveInt = 16
    #: Box IoU above which the lower scored of two masks is dropped.
    nms_threshold: Fraction = 0.7
    #: Thresholds at which edges are compared; fewer are faster and a little lower.
    thresholds: Annotated[int, Field(ge=1, le=999)] = 99
    #: Greatest distance of what is the same, as a share of the image's diagonal.
    max_distance: Annotated[float, Field(gt=0.0, le=1.0)] = 0.0075
    prompts_per_batch: PositiveInt = 32


class AgreementSettings(Section):
    """Two outputs of `amg run` over the same images."""

    first: str
    second: str


class EvaluationConfig(Section):
    """All settings of one evaluation."""

    kind: Literal["clicks", "proposals", "edges", "agreement"]
    #: Folder or prefix for numbers, rows and pictures; None only shows the numbers.
    output: str | None = None
    #: How many of the worst cases become pictures.
    worst: Annotated[int, Field(ge=0, le=1000)] = 12
    model: ModelSettings = ModelSettings()
    dataset: DatasetSettings | None = None
    clicks: ClicksSettings = ClicksSettings()
    proposals: ProposalsSettings = ProposalsSettings()
    edges: EdgesSettings = EdgesSettings()
    agreement: AgreementSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = "agreement" if self.kind == "agreement" else "dataset"
        if getattr(self, needed) is None:
            raise ValueError(f"kind {self.kind} needs the section {needed}")
        if self.kind == "edges" and self.dataset is not None and self.dataset.format != "bsds":
            raise ValueError(
                "kind edges needs a dataset of format bsds, which has people's boundaries; "
                f"received {self.dataset.format}"
            )
        return self


def load_evaluation(document: str, *, overrides: Iterable[str] = ()) -> EvaluationConfig:
    """Read the settings of an evaluation.

    Args:
        document: YAML text.
        overrides: `key=value` or `section.key=value`, the value in YAML; they win.

    Raises:
        ConfigError: If the YAML is no mapping, a key is unknown or a value is out of range.
    """
    values = parse_document(document, EvaluationConfig)
    apply_overrides(values, overrides, example="clicks.clicks=3")
    return validate(EvaluationConfig, values)
