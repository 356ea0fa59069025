"""Fine-tune `tiny` on a domain that it has never seen, and measure what one click finds.

    python -m benchmarks.fine_tuning NUCLEI WORK_DIR [--arm decoder] [--arm lora]

NUCLEI holds `train/` and `valid/`, each with `images/` and `labels/`. Two arms: the encoder is
frozen and the rest trained, on embeddings that are made once; or adapters on the attention
projections are trained, and merged. Each is measured on the validation images before and after: one
click at the innermost point of every nucleus, masks in the image's own size.

An arm that was killed goes on from its last checkpoint; its time counts on. The results are in
`benchmarks/results/fine_tuning.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from amg_pipeline.amg.rle import encode_mask
from amg_pipeline.evaluation.clicking import click_segments
from amg_pipeline.evaluation.sam_points import SamPoints
from amg_pipeline.sam import SAM
from amg_pipeline.sam.weights import save_weights
from amg_pipeline.training.checkpoint import fit_from_checkpoint
from amg_pipeline.training.embedding_cache import EmbeddingCache
from amg_pipeline.training.fine_tuning import freeze_encoder
from amg_pipeline.training.labelled_views import LabelledViews
from amg_pipeline.training.lora import add_adapters, count_parameters, merge_adapters
from amg_pipeline.training.optimizing import WarmUpHold
from amg_pipeline.training.prompted_batches import PromptedBatches
from amg_pipeline.training.sources.label_files import read_label_files
from amg_pipeline.training.trainer import SAMTrainer
from amg_pipeline.training.views import Augmentation

RESULTS = Path(__file__).parent / "results" / "fine_tuning.json"
_SEED = 0
#: Cells have no up and no down, and stains differ.
_AUGMENTATION = Augmentation(turned=0.75, cropped=0.4, least_crop=0.7, oblong=0.0, recoloured=0.7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What is trained, and how long."""

    lora_rank: int = 0
    lora_where: Any = "all"
    views_per_image: int = 6
    batch_size: int = 8
    prompts: int = 16
    rounds: int = 1
    steps: int = 400
    learning_rate: float = 1e-3


ARMS = {
    "decoder": Arm(),
    "lora": Arm(lora_rank=12, lora_where="decoder", learning_rate=4e-3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nuclei", type=Path)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--arm", action="append", choices=ARMS, help="all by default")
    parser.add_argument("--steps", type=int, help="for a try: fewer steps, no result file")
    parser.add_argument("--limit", type=int, help="for a try: measure so many images")
    arguments = parser.parse_args()
    valid = read_label_files(arguments.nuclei / "valid")[: arguments.limit]
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    tiny = SAM.from_variant("tiny")
    if "start" not in results or arguments.limit:
        results["start"] = measure(tiny, valid)
        print("start", results["start"], flush=True)
    for name in arguments.arm or ARMS:
        arm = ARMS[name]
        work_dir = arguments.work_dir / name
        sam, spent, trained = train(arm, arguments.nuclei, work_dir, arguments.steps)
        save_weights(sam, work_dir / "tuned.safetensors")
        # As a user would: the file, not the model that was trained.
        tuned = SAM.from_variant("tiny", weights=str(work_dir / "tuned.safetensors"))
        results[name] = {
            **measure(tuned, valid),
            **spent,
            "trained_share": round(trained / count_parameters(tiny.variables), 4),
            "arm": asdict(arm),
        }
        print(name, results[name], flush=True)
        if not (arguments.steps or arguments.limit):
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def train(
    arm: Arm, nuclei: Path, work_dir: Path, steps: int | None
) -> tuple[SAM, dict[str, float], int]:
    """Fine-tune the packaged weights; give the model, the time, and the numbers trained."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with _counted(work_dir / "time.json") as spent:
        keras.utils.set_random_seed(_SEED)
        sam = SAM.from_variant("tiny")
        views: Any = LabelledViews(
            read_label_files(nuclei / "train"), sam, augmentation=_AUGMENTATION
        )
        if arm.lora_rank:
            add_adapters(sam, rank=arm.lora_rank, where=arm.lora_where)
        else:
            freeze_encoder(sam)
        if not arm.lora_rank or arm.lora_where == "decoder":
            views = EmbeddingCache(sam, views, views_per_image=arm.views_per_image)
        total = steps or arm.steps
        epochs = max(1, total // 50)
        batches = PromptedBatches(
            views,
            batch_size=arm.batch_size,
            prompts=arm.prompts,
            rounds=arm.rounds,
            box_share=0.1,
            steps=min(total, 50),
            seed=_SEED,
        )
        trainer = SAMTrainer(sam, rounds=arm.rounds)
        trainer.compile(
            optimizer=keras.optimizers.AdamW(
                WarmUpHold(arm.learning_rate, 20, total // 2, total),
                weight_decay=0.01,
                global_clipnorm=1.0,
            )
        )
        fit_from_checkpoint(
            trainer,
            batches,
            work_dir / "checkpoint.npz",
            epochs=epochs,
            every=25,
            settings=json.dumps([asdict(arm), total]),
            callbacks=[spent],
            verbose=2,
        )
    trained = count_parameters(trainer.trainable_variables)
    return merge_adapters(sam), spent.totals(), trained


def measure(sam: SAM, images: Any) -> dict[str, float]:
    """Click once into every mask of the images; mean IoU over all masks, and over images."""
    model = SamPoints(sam, prompts_per_batch=32)
    best, top, by_image = [], [], []
    for image in images:
        pixels, masks = image.read(20_000)
        clicked = click_segments(
            model,
            model.encode(pixels),
            [encode_mask(mask) for mask in masks],
            clicks=1,
            placement="center",
            seeds=[[0]] * len(masks),
        )
        best.append(clicked.best_iou[:, 0])
        top.append(clicked.top_iou[:, 0])
        by_image.append(top[-1].mean())
    return {
        "best_iou": round(float(np.concatenate(best).mean()), 4),
        "top_iou": round(float(np.concatenate(top).mean()), 4),
        "top_iou_by_image": round(float(np.mean(by_image)), 4),
        "masks": sum(map(len, top)),
    }


class _Spent(keras.callbacks.Callback):
    """Adds up the time of a training over its pieces."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._before = json.loads(path.read_text()) if path.exists() else {}
        self._started = self._now()

    @staticmethod
    def _now() -> dict[str, float]:
        user, system, *_ = os.times()
        return {"wall_s": time.monotonic(), "cpu_s": user + system}

    def totals(self) -> dict[str, float]:
        return {
            name: round(self._before.get(name, 0.0) + now - self._started[name], 1)
            for name, now in self._now().items()
        }

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.save()

    def save(self) -> None:
        self._path.write_text(json.dumps(self.totals()))


@contextmanager
def _counted(path: Path) -> Iterator[_Spent]:
    spent = _Spent(path)
    yield spent
    spent.save()


if __name__ == "__main__":
    main()
