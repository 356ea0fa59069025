"""Every setting with its range: one section per collaborator, frozen and validated."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

Variant = Literal["tiny", "vit_b", "vit_l", "vit_h"]
VARIANTS: tuple[str, ...] = get_args(Variant)
Backend = Literal["tensorflow", "jax", "torch"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PointGrid = Annotated[tuple[tuple[Fraction, Fraction], ...], Field(min_length=1)]


class Section(BaseModel):
    """Settings that belong together, as a YAML file has them; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _read_as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """Undo what YAML makes of `section:` without keys, and of `yes` and `on`."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if value is None and isinstance(annotation, type) and issubclass(annotation, Section):
            return {}
        # Pydantic takes true for 1.
        if isinstance(value, bool) and annotation not in (bool, bool | None):
            raise ValueError(f"must be another value than true or false, received {value}")
        return value


class ModelSettings(Section):
    """Which segmenter runs, and how."""

    #: Size of the model; `tiny` brings its weights, the published ones need `weights`.
    variant: Variant = "tiny"
    #: Checkpoint path or URI; None means the packaged weights, which only `tiny` has.
    weights: str | None = None
    #: What Keras runs on.
    backend: Backend = "tensorflow"
    #: `strict` gives the reference's masks; `fast` may change them within published bounds.
    precision: Literal["strict", "fast"] = "strict"
    #: Crops per encoder call; fixed while a run lasts, so that nothing recompiles.
    encoder_batch_size: PositiveInt = 1
    #: Threads of one matrix product; None takes, when the plan is made, what a worker asks
    #: a cluster for (`workers.cores_per_worker`), or all cores of this machine without one.
    intra_op_threads: PositiveInt | None = None


class AmgSettings(Section):
    """The reference's automatic mask generation settings, and what its users ask for.

    Names, meaning and defaults are those of `SamAutomaticMaskGenerator`; the settings from
    `min_area` on are ours and off by default.
    """

    #: Points along one side of the square grid; None when `point_grids` are given.
    points_per_side: PositiveInt | None = 32
    #: Prompts per decoder call.
    points_per_batch: PositiveInt = 64
    #: Keep masks whose predicted IoU is above this; 0 keeps all.
    pred_iou_thresh: Fraction = 0.88
    #: Keep masks whose stability score is at least this; 0 keeps all.
    stability_score_thresh: Fraction = 0.95
    #: Distance in logits by which the threshold is moved to measure stability.
    stability_score_offset: Annotated[float, Field(gt=0.0)] = 1.0
    #: Box IoU above which the lower scored of two masks of one crop is dropped.
    box_nms_thresh: Fraction = 0.7
    #: Layers of crops besides the whole image; layer i has (2**i)**2 crops.
    crop_n_layers: Annotated[int, Field(ge=0, le=6)] = 0
    #: The same as `box_nms_thresh`, between masks of different crops.
    crop_nms_thresh: Fraction = 0.7
    #: Overlap of the crops as a fraction of the image's shorter side, halved in each layer.
    crop_overlap_ratio: Fraction = 512 / 1500
    #: The grid of layer i has this factor to the i-th fewer points per side.
    crop_n_points_downscale_factor: PositiveInt = 1
    #: One list of XY points in [0, 1] per layer, instead of `points_per_side`.
    point_grids: tuple[PointGrid, ...] | None = None
    #: Remove holes and islands smaller than this many pixels; 0 leaves masks as they are.
    min_mask_region_area: NonNegativeInt = 0
    #: Drop final masks of fewer pixels.
    min_area: NonNegativeInt = 0
    #: Drop final masks of more pixels.
    max_area: PositiveInt | None = None
    #: Drop final masks that cover at least this fraction of the image; 1 keeps all.
    max_area_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    #: What the three suppressions compare: boxes as in the reference, or the masks themselves.
    nms_kind: Literal["box", "mask"] = "box"
    #: Corners XYXY in pixels of the image; grid points outside are not prompted.
    region_of_interest: tuple[float, float, float, float] | None = None
    #: Keep masks as they are before the suppressions, region clean-up and limits of areas, all of
    #: which `amg refilter` can then do and vary without the model.
    keep_candidates: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.points_per_side is None) == (self.point_grids is None):
            raise ValueError(
                "exactly one of points_per_side and point_grids must be given; "
                "set the other to null"
            )
        if self.point_grids is not None and len(self.point_grids) != self.crop_n_layers + 1:
            raise ValueError(
                f"point_grids must hold crop_n_layers + 1 = {self.crop_n_layers + 1} grids, "
                f"received {len(self.point_grids)}"
            )
        if self.points_per_side is not None:
            self._check_layers(self.points_per_side)
        if self.max_area is not None and self.max_area < self.min_area:
            raise ValueError(
                f"max_area must be at least min_area ({self.min_area}), received {self.max_area}"
            )
        roi = self.region_of_interest
        if roi is not None and (roi[2] <= roi[0] or roi[3] <= roi[1]):
            raise ValueError(f"region_of_interest must be XYXY with x1 > x0 and y1 > y0, got {roi}")
        return self

    def _check_layers(self, points_per_side: int) -> None:
        """Refuse what the reference divides by zero for."""
        for layer in range(self.crop_n_layers + 1):
            factor = self.crop_n_points_downscale_factor**layer
            if points_per_side // factor == 0:
                raise ValueError(
                    f"every crop layer must have at least one point per side, received "
                    f"points_per_side={points_per_side}, which is 0 in crop layer {layer} after "
                    f"division by crop_n_points_downscale_factor ** {layer} = {factor}; raise "
                    "points_per_side, or lower crop_n_layers or the factor"
                )


class ImageSettings(Section):
    """Which images are read, and how."""

    #: Folder, glob or URI prefix of images, tars or Parquet files with images; one such file; or
    #: a manifest (.csv, .jsonl, .parquet with a `uri` column).
    input: str = ""
    #: Column of the images in Parquet files; None finds it.
    column: str | None = None
    #: Keep only image ids that match one of these globs; all when empty.
    include: tuple[str, ...] = ()
    #: Drop image ids that match one of these globs.
    exclude: tuple[str, ...] = ()
    #: Keep only the first so many images, in order of their ids.
    limit: PositiveInt | None = None
    #: Keep a repeatable random subset of so many images (before `limit`).
    sample: PositiveInt | None = None
    #: Another seed draws another sample.
    sample_seed: NonNegativeInt = 0
    #: Turn images upright as their EXIF orientation says.
    exif_orientation: bool = True
    #: Larger images are not decoded (`too_large`): protection against decompression bombs.
    max_pixels: PositiveInt = 200_000_000


class OutputSettings(Section):
    """Where results go."""

    #: Folder or URI prefix.
    uri: str = ""
    #: Images per Parquet object, and so per commit.
    shard_size: PositiveInt = 128


class WorkerSettings(Section):
    """How the work is spread; nothing here changes the output."""

    #: Model workers; None means one per GPU, or one where there is none.
    workers: PositiveInt | None = None
    #: GPUs of a worker, also a fraction of one; None means one, or none where there is none.
    gpus_per_worker: Annotated[float, Field(ge=0.0)] | None = None
    #: Threads that fetch and decode ahead of the model, per worker.
    decode_threads: PositiveInt = 2
    #: Ray cluster; None takes RAY_ADDRESS, else starts a Ray of its own on this machine.
    address: str | None = None
    #: An image that takes longer is hung: its worker is replaced. At least as long as retries may
    #: last, where images come from a store. Not with `--local`.
    image_timeout_seconds: Annotated[float, Field(gt=0.0)] = 600.0
    #: A worker that holds more is replaced, before the machine runs out; None sets no limit.
    memory_limit_bytes: PositiveInt | None = None
    #: Of all machines together, in any currency: gives the cost per thousand images.
    price_per_hour: Annotated[float, Field(ge=0.0)] | None = None

    @property
    def cores_per_worker(self) -> int:
        """Cores that a worker asks a cluster for: one per decode thread, and one for the model."""
        return self.decode_threads + 1


class StorageSettings(Section):
    """How object stores are reached; nothing here changes the output.

    What is not given comes from the environment and the stores' own configuration files. There is
    no place for credentials: they come from there alone, because a plan keeps settings for all to
    read.
    """

    #: Address of an S3-compatible store; None takes AWS_ENDPOINT_URL, else Amazon's own.
    endpoint_url: str | None = None
    #: Region of the S3 buckets; None takes AWS_REGION, AWS_DEFAULT_REGION or the profile's.
    region: str | None = None
    #: Section of the AWS configuration files; None takes AWS_PROFILE.
    profile: str | None = None
    #: Send no credentials, as public buckets allow; AWS_NO_SIGN_REQUEST=yes does it for S3 too.
    anonymous: bool = False
    #: A store that does not take a connection for so long is tried again.
    connect_timeout_seconds: Annotated[float, Field(gt=0.0)] = 10.0
    #: A store that sends nothing for so long is tried again.
    read_timeout_seconds: Annotated[float, Field(gt=0.0)] = 20.0
    #: A request that takes longer in all, however steadily its answer drips, is tried again.
    request_timeout_seconds: Annotated[float, Field(gt=0.0)] = 300.0

    @field_validator("endpoint_url")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        if "@" in value or "?" in value:
            raise ValueError(
                "must hold no user, password or query; credentials come from the environment"
            )
        return value


class RunConfig(Section):
    """All settings of one run."""

    model: ModelSettings = ModelSettings()
    amg: AmgSettings = AmgSettings()
    images: ImageSettings = ImageSettings()
    output: OutputSettings = OutputSettings()
    workers: WorkerSettings = WorkerSettings()
    storage: StorageSettings = StorageSettings()
