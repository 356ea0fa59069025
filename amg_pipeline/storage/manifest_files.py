"""Lists of images that users bring: CSV, JSON lines or Parquet with a `uri` column."""

from __future__ import annotations

import difflib
import json
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.listing import IMAGES_SCHEMA
from amg_pipeline.storage.object_store import read_uri
from amg_pipeline.storage.uris import CREDENTIAL, redact, split_parent

MANIFEST_EXTENSIONS = (".csv", ".jsonl", ".ndjson", ".parquet")

_ABSOLUTE = r"^([A-Za-z][A-Za-z0-9+.\-]*://|/)"
_COLUMNS = ("uri", "image_id")
_TEXT = pa.large_string()
#: One row must fit into a block.
_BLOCK_BYTES = 16 << 20


def is_manifest_name(name: str) -> bool:
    """Tell whether a file name ends as a manifest's does."""
    return name.lower().endswith(MANIFEST_EXTENSIONS)


def read_manifest(uri: str) -> pa.Table:
    """Read a manifest to a list of images, in its own order.

    Columns other than `uri` and `image_id` are ignored. Without `image_id`, the uri as written is
    the id. A relative uri is relative to the manifest's folder.

    Raises:
        ConfigError: If the file is malformed, has no `uri` column, a row has no value, or an
            address holds a credential.
    """
    data = read_uri(uri)
    try:
        table = _parse(data, PurePosixPath(uri).suffix.lower())
        columns = {name: table.column(name).cast(_TEXT) for name in table.column_names}
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"The manifest {redact(uri)} must be UTF-8. Received: something else, such as UTF-16. "
            "Save it as UTF-8"
        ) from error
    except pa.ArrowException as error:
        raise ConfigError(
            f"The manifest {redact(uri)} must be a readable CSV, JSONL or Parquet file whose uri "
            f"and image_id are text. Received: {str(error).partition(chr(10))[0]}"
        ) from error
    for name, column in columns.items():
        _refuse_empty(name, column, uri)
    uris = columns["uri"]
    _refuse_credentials(uris, uri)
    located = _locate(uris, split_parent(uri)[0])
    nothing = [pa.nulls(table.num_rows, field.type) for field in list(IMAGES_SCHEMA)[2:]]
    return pa.Table.from_arrays(
        [columns.get("image_id", uris), located, *nothing], schema=IMAGES_SCHEMA
    )


def _locate(uris: pa.ChunkedArray, folder: str) -> pa.ChunkedArray:
    """Make relative uris absolute."""
    is_absolute = pc.match_substring_regex(uris, _ABSOLUTE)
    if pc.all(is_absolute).as_py():
        # No copy of the largest column there is.
        return uris
    prefix = pa.scalar(folder if folder.endswith("/") else folder + "/", _TEXT)
    located = pc.binary_join_element_wise(prefix, uris, pa.scalar("", _TEXT))
    return pc.if_else(is_absolute, uris, located)


def _parse(data: bytes, suffix: str) -> pa.Table:
    """Read the columns that count, of those that there are."""
    if suffix == ".parquet":
        file = pq.ParquetFile(pa.BufferReader(data))
        return file.read(columns=_known(file.schema_arrow.names))
    if not data.strip():
        raise ConfigError("A manifest must have a column named 'uri'. Received: an empty file")
    if suffix == ".csv":
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            read_options=pa.csv.ReadOptions(block_size=_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(_COLUMNS, _TEXT), strings_can_be_null=False
            ),
        )
        return table.select(_known(table.column_names))
    return _parse_json_lines(data)


def _parse_json_lines(data: bytes) -> pa.Table:
    # Named types, because a text that looks like a date would be read as one.
    table = pa.json.read_json(
        pa.BufferReader(data),
        read_options=pa.json.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pa.json.ParseOptions(
            explicit_schema=pa.schema([(name, pa.string()) for name in _COLUMNS]),
            unexpected_field_behavior="ignore",
        ),
    )
    given = [name for name in _COLUMNS if table.column(name).null_count < table.num_rows]
    if "uri" not in given:
        # The reader does not tell which fields it ignored.
        given = _known(_first_fields(data))
    return table.select(given)


def _first_fields(data: bytes) -> list[str]:
    line = data.strip().partition(b"\n")[0]
    try:
        return list(dict(json.loads(line)))
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "Every line of a JSONL manifest must be a JSON object with a 'uri'. "
            f"Received: {line[:60]!r}. Write one object a line"
        ) from error


def _known(names: list[str]) -> list[str]:
    if "uri" not in names:
        near = difflib.get_close_matches("uri", names, n=1)
        hint = f" Did you mean {near[0]!r}? Then rename it" if near else ""
        raise ConfigError(
            "A manifest must have a column named 'uri', or a Parquet file one of images. "
            f"Received: {', '.join(map(repr, names))}.{hint}"
        )
    known = [name for name in _COLUMNS if name in names]
    for name in known:
        if names.count(name) > 1:
            raise ConfigError(
                f"A manifest must have one column named {name!r}. "
                f"Received: {names.count(name)} of them; rename all but one"
            )
    return known


def _refuse_empty(name: str, column: pa.ChunkedArray, uri: str) -> None:
    empty = pc.or_kleene(pc.is_null(column), pc.equal(column, ""))
    row = pc.index(empty.combine_chunks(), True).as_py()
    if row >= 0:
        raise ConfigError(
            f"Every row of the manifest {redact(uri)} must have a {name}. "
            f"Received: nothing in row {row + 1}"
        )


def _refuse_credentials(column: pa.ChunkedArray, uri: str) -> None:
    row = pc.index(pc.match_substring_regex(column, CREDENTIAL).combine_chunks(), True).as_py()
    if row >= 0:
        raise ConfigError(
            f"No uri of the manifest {redact(uri)} may hold a password or a signature, because "
            f"plan and masks keep it for all to read. Received: one in row {row + 1}, "
            f"{redact(column[row].as_py())}. Give credentials by environment variables, and name "
            "objects by their own addresses, for instance s3://bucket/key"
        )
