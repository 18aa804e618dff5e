"""Images in a column of Parquet files, unpacked once and then read at any row from a memory map.

Parquet packs rows in groups, so that reading one image would unpack hundreds. Each file's column is therefore written
once as an Arrow file without compression, the same thing that the library `datasets` keeps in its cache. pyarrow alone
does this in a few lines. `datasets` would bring pandas, dill, multiprocess and more for the same column, and it keeps
its own copy of the rules that `hub_listing.py` needs for an offline start. pyarrow is an optional package: import it
inside functions.
"""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vdvae_lr.datasets.decoding import LARGEST_FILE, UnreadableImageError
from vdvae_lr.errors import InputError, first_line
from vdvae_lr.files.progress_bar import progress_bar
from vdvae_lr.files.whole_file import replacing

_AT_ONCE = 64  # images in memory while a file is unpacked
_NO_IMAGES = frozenset({"Audio", "Video", "Pdf", "Nifti"})  # kinds of columns that have the form of an image's


def check_pyarrow() -> None:
    """Raise InputError with the command that installs pyarrow if it is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError(
            "data sets of the Hub are read with pyarrow, which is not installed: pip install 'vdvae_lr[hub-data]'"
        ) from None


def unpack_images(parquet: Path, shown: str, column: str, target: Path) -> None:
    """Write the encoded images of a Parquet file to an Arrow file, whole or not at all.

    Args:
        parquet: the file.
        shown: its name in messages.
        column: the column of the images; empty: the only one that can hold images.
        target: the Arrow file.

    Raises:
        InputError: the file is damaged, it has no such column or no column of images, or the disk refuses.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with replacing(target) as part:
        try:
            with pq.ParquetFile(parquet) as file:
                name = image_column(file.schema_arrow, column, shown)
                with (
                    progress_bar() as bar,
                    pa.OSFile(str(part), "wb") as sink,
                    pa.ipc.new_file(sink, pa.schema({"image": pa.binary()})) as writer,
                ):
                    task = bar.add_task(f"unpacking {shown}", total=file.metadata.num_rows)
                    for batch in file.iter_batches(_AT_ONCE, columns=[name]):
                        images = batch.column(0)
                        if pa.types.is_struct(images.type):
                            images = images.flatten()[images.type.get_field_index("bytes")]
                        writer.write_batch(pa.record_batch({"image": images.cast(pa.binary())}))
                        bar.advance(task, len(images))
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk; `replacing` says so
            raise InputError(
                f"{shown} is damaged or no Parquet file ({first_line(error)}): choose another data set or "
                "--hub_revision"
            ) from error


def image_column(schema: Any, wanted: str, shown: str) -> str:
    """The column to read images from: `wanted`, or the only one that can hold images if that is empty.

    Raises:
        InputError: there is no such column, it holds no encoded images, or several or none could be meant.
    """
    able = [field.name for field in schema if _can_hold_images(field.type) and not _says_other(schema, field.name)]
    if wanted and wanted not in schema.names:
        raise InputError(f"{shown} has no column '{wanted}': choose --hub_column from {', '.join(schema.names)}")
    if wanted and wanted not in able:
        others = f"choose --hub_column from {', '.join(able)}" if able else "choose another data set"
        raise InputError(f"column '{wanted}' of {shown} holds {schema.field(wanted).type}, not images: {others}")
    if len(able) > 1 and not wanted:
        raise InputError(f"{shown} has several columns of images: choose one with --hub_column from {', '.join(able)}")
    if not able:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"{shown} has no column of images, only {kinds[:300]}: choose another data set")
    return wanted or able[0]


def _can_hold_images(kind: Any) -> bool:
    """Whether a column is of bytes, or of the Hub's form of an image: bytes and a path."""
    from pyarrow import types

    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_binary(kind.field(place).type)
    return _is_binary(kind)


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _says_other(schema: Any, column: str) -> bool:
    """Whether the file says of a column that it is of another kind than images, such as sound."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        return about["info"]["features"][column]["_type"] in _NO_IMAGES
    except (KeyError, TypeError, ValueError):
        return False


class ParquetRows:
    """Rows of unpacked Parquet files, as an `ImageOpener`: `root/FILE.parquet/ROW`, with rows from 0."""

    remedy = "choose another --hub_revision"

    def __init__(self, root: Path, unpacked: Mapping[str, Path]) -> None:
        """`unpacked` has the Arrow file of each Parquet file, by the rest of its path behind `root`."""
        self._root = root
        self._unpacked = unpacked
        self._columns: dict[str, Any] = {}

    def __getstate__(self) -> tuple[Path, Mapping[str, Path]]:
        return self._root, self._unpacked

    def __setstate__(self, state: tuple[Path, Mapping[str, Path]]) -> None:
        ParquetRows.__init__(self, *state)

    def names(self, file: str) -> list[str]:
        """The names of all rows of a Parquet file, in order."""
        return [f"{file}/{row:09}" for row in range(len(self._column(file)))]

    def open(self, path: Path) -> io.BytesIO:
        """The encoded image in the row that `path` names (raises UnreadableImageError if it has none)."""
        image = self._column(path.parent.relative_to(self._root).as_posix())[int(path.name)]
        if not image.is_valid:
            raise UnreadableImageError("the row has no bytes")
        encoded = image.as_buffer()
        if len(encoded) > LARGEST_FILE:
            raise UnreadableImageError(f"it has {len(encoded):,} bytes, and no image that is decoded needs so many")
        return io.BytesIO(encoded)

    def _column(self, file: str) -> Any:
        """The column of a Parquet file. It lies in a memory map: processes share it, and only what is read is loaded.

        Raises:
            InputError: the Arrow file is damaged or gone.
        """
        if file not in self._columns:
            import pyarrow as pa

            place = self._unpacked[file]
            try:
                self._columns[file] = pa.ipc.open_file(pa.memory_map(str(place))).read_all().column(0)
            except (pa.ArrowException, OSError) as error:
                raise InputError(
                    f"{place}, unpacked from {file}, is damaged or gone ({first_line(error)}): delete it and run the "
                    "same command again"
                ) from error
        return self._columns[file]
