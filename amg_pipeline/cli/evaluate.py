"""The command `amg evaluate`: shows numbers, and writes them with rows and pictures."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import click
import numpy as np
import orjson
from PIL import Image
from rich.console import Console
from rich.table import Table as ScreenTable

from amg_pipeline import __version__
from amg_pipeline.amg.rle import decode_mask
from amg_pipeline.cli.config_file import read_config, set_option
from amg_pipeline.errors import ImageError, JobIncompleteError, StorageError
from amg_pipeline.evaluation.results import Case, Evaluation, Picture, Table
from amg_pipeline.evaluation.settings import EvaluationConfig, load_evaluation
from amg_pipeline.progress import RunProgress
from amg_pipeline.records import Rle
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.measurement_rows import encode_measurements
from amg_pipeline.storage.uris import redact

#: Longer side of a panel in pixels.
_PANEL_SIDE = 640
#: White pixels between panels.
_GAP = 8
_JSON_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_LONGEST_NAME = 80


@click.command(short_help="How good masks are: clicks, proposals, edges, or two runs compared.")
@click.argument("config", metavar="CONFIG")
@set_option("dataset.limit=20")
@click.option("--json", "as_json", is_flag=True, help="Print the numbers as JSON.")
@click.option("--overwrite", is_flag=True, help="Replace files of the same names in the output.")
def evaluate(config: str, overrides: tuple[str, ...], as_json: bool, overwrite: bool) -> None:
    """Measure what the YAML file CONFIG asks for.

    Its `kind` is clicks, proposals, edges or agreement; see docs/evaluation.md. The numbers are
    shown; with `output`, they are written there as summary.json, a row per image (or segment, or
    threshold) as rows.parquet, and the worst cases as pictures below worst/.
    """
    from amg_pipeline.evaluation.measuring import prepare

    settings = load_evaluation(read_config(config, "CONFIG"), overrides=overrides)
    measurement = prepare(settings)
    # Before hours of work: an output that cannot be used shall be known now.
    output = (
        Destination.open_folder(settings.output, overwrite=overwrite)
        if settings.output is not None
        else None
    )
    with output or nullcontext():
        with RunProgress(measurement.num_images) as progress:
            found = measurement.run(progress.on_image)
        document = _document(settings, found)
        if output is not None:
            _write(output, document, found)
    if as_json:
        click.echo(document.decode(), nl=False)
    else:
        for table in found.tables:
            Console().print(_on_screen(table))
    if output is not None:
        click.echo(f"output: {redact(output.uri)}", err=as_json)
    if found.failed:
        first, reason = next(iter(found.failed.items()))
        raise JobIncompleteError(
            f"{len(found.failed)} of {measurement.num_images} images could not be measured, "
            f"the numbers are of the others; the first is {first!r}: {reason}"
        )


def _document(settings: EvaluationConfig, found: Evaluation) -> bytes:
    unused = {"clicks", "proposals", "edges", "agreement", "dataset", "model"} - {settings.kind}
    if settings.kind != "agreement":
        unused -= {"dataset", "model"}
    return orjson.dumps(
        {
            "kind": settings.kind,
            **found.summary,
            "failed": found.failed,
            "settings": _without_credentials(settings.model_dump(mode="json", exclude=unused)),
            "amg_pipeline": __version__,
        },
        option=_JSON_OPTIONS,
    )


def _without_credentials(value: Any) -> Any:
    """Redact every text in settings: any of them may be an address."""
    if isinstance(value, dict):
        return {key: _without_credentials(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_credentials(part) for part in value]
    return redact(value) if isinstance(value, str) else value


def _write(output: Destination, document: bytes, found: Evaluation) -> None:
    output.put("rows.parquet", encode_measurements(found.rows))
    for number, case in enumerate(found.worst):
        picture = _picture_of(case)
        if picture is not None:
            output.put(f"worst/{number:03d}-{_file_name(case)}.png", picture)
    # Last, so that what it stands beside is there.
    output.flush()
    output.put("summary.json", document)


def _picture_of(case: Case) -> bytes | None:
    """Draw a case; None where its image is gone by now."""
    try:
        panels = case.panels(_draw)
    except (ImageError, StorageError):
        return None
    buffer = io.BytesIO()
    Image.fromarray(_side_by_side(panels)).save(buffer, "PNG")
    return buffer.getvalue()


def _draw(pixels: Picture, masks: Sequence[Rle]) -> Picture:
    """Draw masks over an image, the smallest on top."""
    from amg_pipeline.report.overlays import draw_masks, shrink
    from amg_pipeline.report.sampled_masks import SampledMask

    photo = shrink(pixels, max_side=_PANEL_SIDE)
    rows, columns = (
        ((np.arange(count) + 0.5) * source / count).astype(np.intp)
        for count, source in zip(photo.shape[:2], pixels.shape[:2], strict=True)
    )
    sampled = [
        decode_mask(mask)[np.ix_(rows, columns)]
        for mask in sorted(masks, key=lambda mask: -mask.area)
    ]
    return draw_masks(
        photo, [SampledMask(i, part, 0, 0) for i, part in enumerate(sampled) if part.any()]
    )


def _side_by_side(panels: Sequence[Picture]) -> Picture:
    from amg_pipeline.report.overlays import shrink

    shrunk = [shrink(panel, max_side=_PANEL_SIDE) for panel in panels]
    height = max(panel.shape[0] for panel in shrunk)
    padded = [
        np.pad(
            panel,
            ((0, height - panel.shape[0]), (0, _GAP if i + 1 < len(shrunk) else 0), (0, 0)),
            constant_values=255,
        )
        for i, panel in enumerate(shrunk)
    ]
    return np.concatenate(padded, axis=1)


def _file_name(case: Case) -> str:
    text = f"{case.score:.3f}-{case.image_id}-{case.name}"
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text)[:_LONGEST_NAME].strip("._")


def _on_screen(table: Table) -> ScreenTable:
    screen = ScreenTable(title=table.title, title_justify="left")
    for i, name in enumerate(table.header):
        screen.add_column(name, justify="left" if i == 0 else "right")
    for row in table.rows:
        screen.add_row(*map(_as_text, row))
    return screen


def _as_text(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
