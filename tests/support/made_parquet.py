"""Parquet files of small images, as people publish them on the Hub."""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from made_images import saved
from PIL import Image


def png(value: int) -> bytes:
    """An image of 8×8 pixels of one grey level."""
    return saved(Image.new("RGB", (8, 8), (value, value, value)))


def written(table: pa.Table, **options: Any) -> bytes:
    """The table as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def parquet(images: Sequence[bytes | None], **options: Any) -> bytes:
    """A file as `datasets` writes it, with the images in small groups of rows."""
    rows = [{"bytes": each, "path": f"{number}.png"} for number, each in enumerate(images)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {"image": pa.array(rows, kind), "label": pa.array(range(len(rows)), pa.int64())}
    return written(pa.table(columns), **({"row_group_size": 3} | options))


def pictures(*values: int) -> bytes:
    """A file with an image for each grey level."""
    return parquet([png(value) for value in values])
