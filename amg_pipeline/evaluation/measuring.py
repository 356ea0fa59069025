"""From settings to what they ask for: opens the data, loads the model, measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError, ImageError
from amg_pipeline.evaluation.agreement import evaluate_agreement
from amg_pipeline.evaluation.annotated import AnnotatedImage
from amg_pipeline.evaluation.clicks import evaluate_clicks
from amg_pipeline.evaluation.datasets import Subset, open_dataset
from amg_pipeline.evaluation.edge_maps import predict_edges
from amg_pipeline.evaluation.edges import evaluate_edges
from amg_pipeline.evaluation.proposals import Proposal, evaluate_proposals, rank_records
from amg_pipeline.evaluation.results import Evaluation
from amg_pipeline.evaluation.settings import (
    AgreementSettings,
    DatasetSettings,
    EvaluationConfig,
    ProposalsSettings,
)
from amg_pipeline.records import ImageRef
from amg_pipeline.sam.loading import load_model
from amg_pipeline.storage.image_masks import ImageMasks, read_image_masks
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory

#: The variant whose weights the package brings.
_PACKAGED_VARIANT = "tiny"

OnImage = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement that is ready to start.

    Attributes:
        num_images: Images that it will go through.
        run: Does it; called with what to call after each image.
    """

    num_images: int
    run: Callable[[OnImage], Evaluation]


def prepare(config: EvaluationConfig) -> Measurement:
    """Look at everything that an evaluation needs but the model, which `run` loads.

    Raises:
        ConfigError: If data or weights are not there.
        StorageError: If data cannot be read.
    """
    if config.agreement is not None and config.kind == "agreement":
        return _prepare_agreement(config.agreement, worst=config.worst)
    if config.dataset is None:
        raise ConfigError(f"kind {config.kind} needs the section dataset. Received: none")
    if config.model.weights is None and config.model.variant != _PACKAGED_VARIANT:
        raise ConfigError(
            f"model.weights must name a checkpoint for {config.model.variant}. Received: none. "
            f"Get the official one with `amg weights fetch {config.model.variant}`, or use the "
            f"packaged {_PACKAGED_VARIANT}"
        )
    images = _open(config.dataset)
    measure = {"clicks": _clicks, "proposals": _proposals, "edges": _edges}[config.kind]
    return Measurement(len(images), partial(measure, config, config.dataset, images))


def _open(dataset: DatasetSettings) -> list[AnnotatedImage]:
    return open_dataset(
        dataset.format,
        images=dataset.images,
        annotations=dataset.annotations,
        exif_orientation=dataset.exif_orientation,
        subset=Subset(sample=dataset.sample, sample_seed=dataset.sample_seed, limit=dataset.limit),
    )


def _clicks(
    config: EvaluationConfig,
    dataset: DatasetSettings,
    images: list[AnnotatedImage],
    on_image: OnImage,
) -> Evaluation:
    sam, settings = load_model(config.model), config.clicks
    from amg_pipeline.evaluation.sam_points import SamPoints

    return evaluate_clicks(
        images,
        SamPoints(sam, prompts_per_batch=settings.prompts_per_batch),
        clicks=settings.clicks,
        placements=settings.placements,
        seed=settings.seed,
        annotator=dataset.annotator,
        min_area_fraction=dataset.min_area_fraction,
        worst=config.worst,
        on_image=on_image,
    )


def _proposals(
    config: EvaluationConfig,
    dataset: DatasetSettings,
    images: list[AnnotatedImage],
    on_image: OnImage,
) -> Evaluation:
    return evaluate_proposals(
        images,
        make_proposer(load_model(config.model), config.proposals),
        limits=config.proposals.limits,
        annotator=dataset.annotator,
        min_area_fraction=dataset.min_area_fraction,
        worst=config.worst,
        on_image=on_image,
    )


def make_proposer(
    sam: object, settings: ProposalsSettings
) -> Callable[[NDArray[np.uint8]], list[Proposal]]:
    """Make proposals with the mask generator: no filter by scores, ranked by both.

    Args:
        sam: A model as `AutomaticMaskGenerator` takes it.
        settings: The grid and the suppression.
    """
    from amg_pipeline.amg.generator import AutomaticMaskGenerator

    generator = AutomaticMaskGenerator(
        sam,
        points_per_side=settings.points_per_side,
        points_per_batch=settings.points_per_batch,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        stability_score_offset=settings.stability_score_offset,
        box_nms_thresh=settings.box_nms_thresh,
    )
    return lambda pixels: rank_records(generator.generate_records(pixels))


def _edges(
    config: EvaluationConfig,
    _dataset: DatasetSettings,
    images: list[AnnotatedImage],
    on_image: OnImage,
) -> Evaluation:
    sam, settings = load_model(config.model), config.edges
    from amg_pipeline.evaluation.sam_points import SamPoints

    find_edges = partial(
        predict_edges,
        SamPoints(sam, prompts_per_batch=settings.prompts_per_batch),
        points_per_side=settings.points_per_side,
        nms_threshold=settings.nms_threshold,
    )
    return evaluate_edges(
        images,
        find_edges,
        num_thresholds=settings.thresholds,
        max_distance=settings.max_distance,
        worst=config.worst,
        on_image=on_image,
    )


def _prepare_agreement(settings: AgreementSettings, *, worst: int) -> Measurement:
    datasets = [load_masks(uri) for uri in (settings.first, settings.second)]
    plan = RunDirectory.open(settings.first).require_plan()

    def run(on_image: OnImage) -> Evaluation:
        first, second = (read_image_masks(dataset) for dataset in datasets)
        return evaluate_agreement(
            first, second, read_pixels=_read_pixels, worst=worst, on_image=on_image
        )

    return Measurement(plan.num_images, run)


def _read_pixels(image: ImageMasks) -> NDArray[np.uint8]:
    """Read an image for a picture; grey if it is gone, or another one by now."""
    try:
        pixels = load_image(ImageRef(image.image_id, image.uri)).pixels
    except ImageError:
        pixels = np.zeros((0, 0, 3), np.uint8)
    if pixels.shape[:2] != (image.height, image.width):
        return np.full((image.height, image.width, 3), 128, np.uint8)
    return pixels
