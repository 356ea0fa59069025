"""Measures the packaged model on BSDS500 val beside classical segmentations.

    python -m benchmarks.tiny_quality FOLDER [--work-dir WORK] [--seconds 300]

FOLDER holds `images/` and `groundTruth/`. What was measured of each photo is kept in WORK at once;
the same command goes on where it stopped, after `--seconds` for instance, and writes the table when
all photos have been measured. Other weights start anew, in files of their own.

A segment is one that the first annotator drew, of at least 0.5 % of the image; a click lies at its
most inner point. A model gives three masks for it; a classical method the regions that hold the
point, at one setting ("top scored") or at three ("best of three"), those that are best on this very
data. Average recall takes the best 100 or 1000 of all masks of a 32 x 32 grid; of a classical
method the regions of one setting, or of the coarsest two, three and so on, again whichever is best,
the largest first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from amg_pipeline.amg.rle import decode_mask
from amg_pipeline.evaluation.annotated import (
    AnnotatedImage,
    choose_segments,
    label_map_to_segments,
)
from amg_pipeline.evaluation.clicking import click_segments, mask_iou, most_inner_point
from amg_pipeline.evaluation.datasets import Subset, open_dataset
from amg_pipeline.evaluation.proposals import Proposal, Recalls, count_hits
from benchmarks.classical_segments import METHODS, Method, segment_image

MIN_AREA_FRACTION = 0.005
LIMITS = (100, 1000)
#: The issue's second setting of the mask generator; the first is the model's own.
LOOSE = {
    "points_per_side": 16,
    "pred_iou_thresh": 0.5,
    "stability_score_thresh": 0.6,
    "stability_score_offset": 1.0,
}
RESULT = Path(__file__).parent / "results" / "tiny_quality.json"
MODEL = "tiny"

Row = dict[str, Any]


def measure_model(weights: str | None) -> Callable[[AnnotatedImage], Row]:
    """Load the model; what it returns measures one photo."""
    from amg_pipeline import AutomaticMaskGenerator
    from amg_pipeline.config import ModelSettings
    from amg_pipeline.evaluation.measuring import make_proposer
    from amg_pipeline.evaluation.sam_points import SamPoints
    from amg_pipeline.evaluation.settings import ProposalsSettings
    from amg_pipeline.sam.loading import load_model

    sam = load_model(ModelSettings(weights=weights))
    points = SamPoints(sam)
    propose = make_proposer(sam, ProposalsSettings())
    generators = {
        "default": AutomaticMaskGenerator(sam),
        "loose": AutomaticMaskGenerator(sam, **LOOSE),
    }

    def measure(image: AnnotatedImage) -> Row:
        pixels, annotations = image.read()
        segments = _segments_of(annotations)
        clicked = click_segments(
            points,
            points.encode(pixels),
            segments,
            clicks=1,
            placement="center",
            seeds=[()] * len(segments),
        )
        proposals = sorted(propose(pixels), key=lambda proposal: -proposal.score)
        return {
            "ious": _rounded(clicked.ious[:, 0]),
            "predicted_iou": _rounded(clicked.predicted_iou[:, 0]),
            "proposals": len(proposals),
            "recall": _recall_row(count_hits(segments, proposals, limits=LIMITS)),
            "masks": {name: len(g.generate_records(pixels)) for name, g in generators.items()},
        }

    return measure


def measure_method(method: Method) -> Callable[[AnnotatedImage], Row]:
    """Measure one photo with a classical method at all its settings."""

    def measure(image: AnnotatedImage) -> Row:
        pixels, annotations = image.read()
        segments = _segments_of(annotations)
        label_maps = segment_image(method, pixels)
        ious = []
        for segment in segments:
            truth = decode_mask(segment)
            x, y, _ = most_inner_point(truth)
            ious.append([mask_iou(labels == labels[y, x], truth) for labels in label_maps])
        regions = [label_map_to_segments(labels) for labels in label_maps]
        pools = {
            **{method.settings[i]: regions[i : i + 1] for i in range(len(regions))},
            **{f"the coarsest {i}": regions[:i] for i in range(2, len(regions) + 1)},
        }
        recalls = {}
        for name, chosen in pools.items():
            # The same region at two settings is one proposal.
            unique = {region.counts.tobytes(): region for some in chosen for region in some}
            proposals = [Proposal(region, float(region.area)) for region in unique.values()]
            proposals.sort(key=lambda proposal: -proposal.score)
            recalls[name] = _recall_row(count_hits(segments, proposals, limits=LIMITS))
        return {"ious": _rounded(np.array(ious)), "recalls": recalls}

    return measure


def _segments_of(annotations: Any) -> list[Any]:
    return choose_segments(annotations, annotator="first", min_area_fraction=MIN_AREA_FRACTION)


def _rounded(values: Any) -> list[Any]:
    return np.round(np.asarray(values, np.float64), 5).tolist()


def _recall_row(recalls: Recalls) -> Row:
    """Keep hits on segments of all sizes, averaged over thresholds, by limit."""
    return {
        "hits": _rounded(recalls.hits[:, 0].mean(axis=0)),
        "segments": int(recalls.segments[0]),
    }


def summarize_model(rows: list[Row]) -> Row:
    """Put the rows of all photos together."""
    ious = np.concatenate([np.reshape(row["ious"], (-1, 3)) for row in rows])
    predicted = np.concatenate([np.reshape(row["predicted_iou"], (-1, 3)) for row in rows])
    top = ious[np.arange(len(ious)), predicted.argmax(axis=1)]
    masks = {name: np.array([row["masks"][name] for row in rows]) for name in ("default", "loose")}
    return {
        "segments": len(ious),
        "best_of_three": float(ious.max(axis=1).mean()),
        "top_scored": float(top.mean()),
        **_average_recalls([row["recall"] for row in rows]),
        "proposals_per_photo": float(np.mean([row["proposals"] for row in rows])),
        "spearman": float(stats.spearmanr(predicted.ravel(), ious.ravel()).statistic),
        "masks_per_photo": {
            name: {
                "least": int(counts.min()),
                "median": float(np.median(counts)),
                "most": int(counts.max()),
            }
            for name, counts in masks.items()
        },
        "photos_with_10_to_150_default": int(
            np.count_nonzero((masks["default"] >= 10) & (masks["default"] <= 150))
        ),
        "photos_with_8_loose": int(np.count_nonzero(masks["loose"] >= 8)),
    }


def summarize_method(method: Method, rows: list[Row]) -> Row:
    """Put the rows of all photos together, and choose the best settings."""
    count = len(method.settings)
    ious = np.concatenate([np.reshape(row["ious"], (-1, count)) for row in rows])
    single = int(ious.mean(axis=0).argmax())
    triples = {
        triple: float(ious[:, triple].max(axis=1).mean())
        for triple in itertools.combinations(range(count), min(3, count))
    }
    triple = max(triples, key=triples.__getitem__)
    recalls = {
        pool: _average_recalls([row["recalls"][pool] for row in rows])
        for pool in rows[0]["recalls"]
    }
    best = {
        name: max(recalls, key=lambda pool: recalls[pool][name])
        for name in (f"ar_at_{limit}" for limit in LIMITS)
    }
    return {
        "title": method.title,
        "best_of_three": triples[triple],
        "best_of_three_settings": [method.settings[i] for i in triple],
        "top_scored": float(ious[:, single].mean()),
        "top_scored_setting": method.settings[single],
        **{name: recalls[pool][name] for name, pool in best.items()},
        **{f"{name}_settings": pool for name, pool in best.items()},
    }


def _average_recalls(recalls: list[Row]) -> dict[str, float]:
    hits = np.sum([row["hits"] for row in recalls], axis=0)
    segments = sum(row["segments"] for row in recalls)
    return {
        f"ar_at_{limit}": float(hit / segments) for limit, hit in zip(LIMITS, hits, strict=True)
    }


class Rows:
    """Rows of one part by photo, in a file that grows by a line each.

    Args:
        path: The file; a last line that a kill cut off is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.by_id: dict[str, Row] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.by_id[row["image_id"]] = row

    def add(self, image_id: str, row: Row) -> None:
        """Keep a row, on the disk too."""
        self.by_id[image_id] = {"image_id": image_id, **row}
        with self._path.open("a") as file:
            # A line of its own, whatever a kill left before it.
            file.write("\n" + json.dumps(self.by_id[image_id]) + "\n")


def measure_part(
    name: str,
    images: list[AnnotatedImage],
    path: Path,
    load: Callable[[], Callable[[AnnotatedImage], Row]],
    *,
    deadline: float,
) -> list[Row] | None:
    """Measure what is missing of a part; None where time ran out."""
    rows = Rows(path)
    missing = [image for image in images if image.image_id not in rows.by_id]
    measure = load() if missing and time.monotonic() < deadline else None
    for image in missing:
        if measure is None or time.monotonic() >= deadline:
            left = sum(image.image_id not in rows.by_id for image in images)
            print(f"{name}: {left} of {len(images)} photos left")
            return None
        rows.add(image.image_id, measure(image))
    return [rows.by_id[image.image_id] for image in images]


def table_lines(result: Row) -> Iterator[str]:
    """Write the result as a table for the docs."""
    yield "| | best of three | top scored | AR@100 | AR@1000 |"
    yield "|---|---|---|---|---|"
    model = [{"title": "`tiny`", **result[MODEL]}] if MODEL in result else []
    for entry in [*model, *result["classical"].values()]:
        figures = (entry[k] for k in ("best_of_three", "top_scored", "ar_at_100", "ar_at_1000"))
        yield f"| {entry['title']} | {' | '.join(f'{figure:.3f}' for figure in figures)} |"


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work-dir", type=Path, default=RESULT.parent)
    parser.add_argument("--weights", help="others than the packaged ones")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--part", action="append", choices=[MODEL, *METHODS], help="only these")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from amg_pipeline.sam.weights import weights_sha256

    deadline = time.monotonic() + arguments.seconds
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    images = open_dataset(
        "bsds",
        images=str(arguments.folder / "images"),
        annotations=str(arguments.folder / "groundTruth"),
        subset=Subset(limit=arguments.limit),
    )
    digest = weights_sha256("tiny", arguments.weights)
    parts = {
        MODEL: (f"tiny_quality.tiny-{digest[:8]}.jsonl", lambda: measure_model(arguments.weights)),
        **{
            name: (f"tiny_quality.{name}.jsonl", lambda method=method: measure_method(method))
            for name, method in METHODS.items()
        },
    }
    measured = {
        name: measure_part(name, images, arguments.work_dir / file, load, deadline=deadline)
        for name, (file, load) in parts.items()
        if arguments.part is None or name in arguments.part
    }
    if None in measured.values():
        print("not complete; the same command goes on")
        return
    result = {
        "photos": len(images),
        "weights_sha256": digest,
        **{
            name: summarize_model(rows) for name, rows in measured.items() if name == MODEL and rows
        },
        "classical": {
            name: summarize_method(METHODS[name], rows)
            for name, rows in measured.items()
            if name != MODEL and rows
        },
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(table_lines(result)))


if __name__ == "__main__":
    main()
