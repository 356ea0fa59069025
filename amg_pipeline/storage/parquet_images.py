"""Images inside Parquet files, as Hugging Face `datasets` and others keep them.

An image is a value of a binary column, or the field `bytes` of a struct.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.ranged_file import RangedFile
from amg_pipeline.storage.uris import redact

PARQUET_EXTENSION = ".parquet"

_ADDRESS = re.compile(
    r"(?P<uri>.+\.parquet(?:\?[^#]*)?)#column=(?P<column>[^#&]+)&row=(?P<row>[0-9]{1,18})",
    re.IGNORECASE | re.DOTALL,
)
#: Names of binary columns that are taken for images, the likeliest first.
_COLUMN_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_DEFAULT_RETRY = RetryPolicy()
#: Pages are read as they are needed, not a row group's column at once.
_BUFFER_BYTES = 1 << 20
#: What pyarrow raises for damaged data. Faults of the store pass through it as they are.
ARROW_FAULTS = (pa.ArrowException, OSError)


@dataclass(frozen=True, slots=True)
class RowAddress:
    """Which row of which column holds an image: `x.parquet#column=image&row=17`."""

    uri: str
    column: str
    row: int

    def __str__(self) -> str:
        """Write the address."""
        return f"{row_address_stem(self.uri, self.column)}{self.row}"

    @classmethod
    def parse(cls, uri: str) -> RowAddress | None:
        """Read an address; None for one of anything else."""
        match = _ADDRESS.fullmatch(uri)
        return cls(match["uri"], unquote(match["column"]), int(match["row"])) if match else None


@dataclass(frozen=True, slots=True)
class ParquetIndex:
    """What a Parquet file's footer says about the images in it.

    Attributes:
        column: The column with the images.
        num_rows: Images in the file.
        num_bytes: Size of the column, compressed.
        tag: By which the file is known again.
    """

    column: str
    num_rows: int
    num_bytes: int
    tag: str


def row_address_stem(uri: str, column: str) -> str:
    """Write the part that the addresses of a file's rows have in common; the row follows."""
    return f"{uri}#column={quote(column, safe='')}&row="


def is_parquet_name(name: str) -> bool:
    """Tell whether a file name ends as a Parquet file's does."""
    return name.lower().endswith(PARQUET_EXTENSION)


def read_columns(uri: str, *, retry: RetryPolicy = _DEFAULT_RETRY) -> list[str]:
    """Read the names of a Parquet file's columns.

    Raises:
        ConfigError: If it is no whole Parquet file.
        StorageError: If it cannot be read.
    """
    return list(open_parquet(uri, retry).schema_arrow.names)


def index_parquet(
    uri: str, *, column: str | None, retry: RetryPolicy = _DEFAULT_RETRY
) -> ParquetIndex | None:
    """Find the images of a Parquet file by its footer alone.

    Args:
        uri: The file.
        column: Name of the column with the images; None finds it.
        retry: Bounds of the retries of transient faults.

    Returns:
        None if no column may hold images.

    Raises:
        ConfigError: If it is no whole Parquet file, or several columns may hold its images.
        StorageError: If it cannot be read.
    """
    file = open_parquet(uri, retry)
    found = _find_column(file.schema_arrow, column, uri)
    if found is None:
        return None
    metadata = file.metadata
    leaf = leaf_of(file.schema_arrow, found)
    position = [file.schema.column(i).path for i in range(len(file.schema))].index(leaf)
    num_bytes = sum(
        metadata.row_group(group).column(position).total_compressed_size
        for group in range(metadata.num_row_groups)
    )
    return ParquetIndex(found, metadata.num_rows, num_bytes, tag_of(metadata))


def open_parquet(uri: str, retry: RetryPolicy) -> pq.ParquetFile:
    """Open a Parquet file by its footer.

    Raises:
        ConfigError: If it is no whole Parquet file.
        StorageError: If it cannot be read.
    """
    file = RangedFile(uri, retry=retry)
    try:
        return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except FileNotFoundError:
        raise
    except ARROW_FAULTS as error:
        raise ConfigError(
            f"A Parquet file must be whole and readable. Received: {redact(uri)}: "
            f"{_first_line(error)}. Copy it anew, or leave it out with --exclude"
        ) from error


def _find_column(schema: pa.Schema, wanted: str | None, uri: str) -> str | None:
    candidates = _image_columns(schema)
    if wanted is not None:
        if wanted in schema.names and wanted not in byte_columns(schema):
            raise ConfigError(
                "images.column must name one column of bytes, or of structs with a field 'bytes'. "
                f"Received: {wanted!r}, which is none in {redact(uri)}"
            )
        return wanted if wanted in schema.names else None
    if len(candidates) > 1 and "image" not in candidates:
        raise ConfigError(
            f"The images of {redact(uri)} must be in one column. Received: "
            f"{', '.join(map(repr, candidates))}. Choose with --set images.column=NAME"
        )
    return "image" if "image" in candidates else next(iter(candidates), None)


def _image_columns(schema: pa.Schema) -> list[str]:
    """Name the columns that hold images, by what Hugging Face's writer says or by their types."""
    features = _features(schema)
    said = [
        name
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "Image" and name in schema.names
    ]
    readable = byte_columns(schema)
    structs = [name for name in readable if pa.types.is_struct(schema.field(name).type)]
    if features:
        # Sounds and videos are structs with bytes, too.
        structs = [name for name in structs if name in said]
    # Of plain columns, which may hold anything, the likeliest.
    return structs or [name for name in _COLUMN_NAMES if name in readable][:1]


def byte_columns(schema: pa.Schema) -> list[str]:
    """Name the columns that can be read as images, as far as their types say."""
    return [
        field.name
        for field in schema
        if schema.names.count(field.name) == 1
        and (_is_bytes(field.type) or _is_struct_with_bytes(field.type))
    ]


def _features(schema: pa.Schema) -> dict[str, Any]:
    try:
        document = json.loads((schema.metadata or {})[b"huggingface"])
        features = document["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_struct_with_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    position = kind.get_field_index("bytes")
    return position >= 0 and _is_bytes(kind.field(position).type)


def leaf_of(schema: pa.Schema, column: str) -> str:
    """Name what is read of a column with images."""
    is_struct = pa.types.is_struct(schema.field(column).type)
    return f"{column}.bytes" if is_struct else column


def tag_of(metadata: pq.FileMetaData) -> str:
    """Tell one writing of a file from another: compressed images of other files differ in size."""
    sizes = [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]
    return f"{metadata.num_rows}-{sum(sizes)}-{metadata.serialized_size}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
