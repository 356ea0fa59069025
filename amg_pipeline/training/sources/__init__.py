"""Images with masks to train on, whatever they are stored as.

images = read_source("coco", "cells/instances.json", images="cells/photos")
for image in Shuffled(images, seed=0, epoch=3):
    pixels, masks = image.read(1024)

Listing opens what says which images there are; pixels and masks are decoded by `read`, and nothing
of them is kept. Nothing outside of the folders that are named is opened.
"""

from __future__ import annotations

from amg_pipeline.training.sources.formats import SOURCES, read_source
from amg_pipeline.training.sources.labelled_image import LabelledImage
from amg_pipeline.training.sources.order import Shuffled

__all__ = ["SOURCES", "LabelledImage", "Shuffled", "read_source"]
