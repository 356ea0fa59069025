"""A folder that `datasets.load_dataset` and the Hugging Face Hub open: Parquet and a card."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from amg_pipeline.export.image_copies import fetch_original
from amg_pipeline.export.row_groups import group_images, write_parts
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.storage.derived_tables import OBJECTS_SCHEMA, objects_table
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

_GROUP_MASKS = 16_384
_GROUP_IMAGES = 64
#: Fewer, since their bytes are all in memory.
_GROUP_WITH_IMAGES = 16
_GROUPS = 64

#: The types must be said here: Parquet alone does not tell an image from a struct.
_CARD = """---
pretty_name: Masks found by amg_pipeline
task_categories:
- image-segmentation
- mask-generation
dataset_info:
  features:
  - name: image
    dtype: image
  - name: image_id
    dtype: string
  - name: width
    dtype: int32
  - name: height
    dtype: int32
  - name: objects
    struct:
    - name: id
      list: int64
    - name: counts
      list: string
    - name: bbox
      list:
        list: float32
    - name: area
      list: int64
    - name: predicted_iou
      list: float32
    - name: stability_score
      list: float32
    - name: category
      list: string
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

One row per image. `objects.counts` are COCO's compressed run lengths of size `[height, width]`:

    from pycocotools import mask
    mask.decode({"size": [row["height"], row["width"]], "counts": row["objects"]["counts"][0]})

`objects.bbox` is left, top, width, height in pixels.
"""


def export_hf_datasets(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write `data/train-*.parquet` and `README.md`.

    The column `image` has the image's bytes with `with_images`, and else its address only.
    """
    write_parts(
        _tables(images, settings),
        destination,
        "data/train-{:05d}.parquet".format,
        schema=OBJECTS_SCHEMA,
        groups=_GROUPS,
    )
    destination.put("README.md", _CARD.encode())


def _tables(images: Iterable[ImageMasks], settings: ExportSettings) -> Iterator[Any]:
    first_id = 0
    at_most = _GROUP_WITH_IMAGES if settings.with_images else _GROUP_IMAGES
    for group in group_images(images, masks=_GROUP_MASKS, images_at_most=at_most):
        places = ((_data(image, settings), _path(image, settings)) for image in group)
        yield objects_table(group, first_id=first_id, label=settings.label, places=places)
        first_id += sum(map(len, group))


def _data(image: ImageMasks, settings: ExportSettings) -> bytes | None:
    return fetch_original(image) if settings.with_images else None


def _path(image: ImageMasks, settings: ExportSettings) -> str:
    if settings.with_images:
        return image.image_id
    return image.uri if settings.image_root is None else settings.image_root + image.image_id
