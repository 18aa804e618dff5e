"""Images in Parquet files: which column they are in, in which form, and how they are read after unpacking."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from made_parquet import parquet, png, written
from refusals import refused

from vdvae_lr.datasets.decoding import UnreadableImageError
from vdvae_lr.datasets.parquet_images import ParquetRows, unpack_images

SHOWN = "tester/photos/a.parquet"


def unpacked(folder: Path, content: bytes, column: str = "") -> list[bytes]:
    """The encoded images that come back."""
    folder.mkdir(exist_ok=True)
    (folder / "a.parquet").write_bytes(content)
    unpack_images(folder / "a.parquet", SHOWN, column, folder / "a.arrow")
    rows = ParquetRows(Path("tester/photos"), {"a.parquet": folder / "a.arrow"})
    return [rows.open(Path("tester/photos") / name).read() for name in rows.names("a.parquet")]


def columns(metadata: dict[bytes, bytes] | None = None, **named: Any) -> bytes:
    return written(pa.table(named).replace_schema_metadata(metadata))


IMAGES = [png(number) for number in range(200)]  # more than are unpacked at once


@pytest.mark.parametrize(
    "column",
    [
        pa.array(IMAGES, pa.binary()),
        pa.array(IMAGES, pa.large_binary()),
        pa.array([{"bytes": each} for each in IMAGES]),
        pa.array([{"path": "x.png", "bytes": each} for each in IMAGES]),
        pa.array([{"bytes": each} for each in IMAGES], pa.struct({"bytes": pa.large_binary(), "path": pa.string()})),
    ],
    ids=["bytes", "large bytes", "without paths", "paths first", "large bytes with paths"],
)
def test_every_form_and_every_row_comes_back(tmp_path: Path, column: pa.Array) -> None:
    content = written(pa.table({"number": range(200), "picture": column}), row_group_size=90, compression="zstd")
    assert unpacked(tmp_path, content) == IMAGES


def test_a_row_without_bytes_has_no_image(tmp_path: Path) -> None:
    content = parquet([png(0), None])
    with pytest.raises(UnreadableImageError, match="the row has no bytes"):
        unpacked(tmp_path, content)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    with pytest.raises(UnreadableImageError, match="the row has no bytes"):
        unpacked(tmp_path, columns(image=pa.array([None], kind)))


def test_an_image_of_too_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vdvae_lr.datasets.parquet_images.LARGEST_FILE", 10)
    with pytest.raises(UnreadableImageError, match="no image that is decoded needs so many"):
        unpacked(tmp_path, parquet([png(0)]))


def test_a_column_has_to_hold_images_and_to_be_the_only_one_or_chosen(tmp_path: Path) -> None:
    image, other = pa.array([png(5)], pa.binary()), pa.array([png(6)], pa.binary())
    two = columns(left=image, right=other, label=[1])
    with refused(SHOWN, "several columns of images", "--hub_column from left, right"):
        unpacked(tmp_path, two)
    with refused(SHOWN, "no column 'up'", "--hub_column from left, right, label"):
        unpacked(tmp_path, two, "up")
    with refused("column 'label'", "holds int64, not images", "--hub_column from left, right"):
        unpacked(tmp_path, two, "label")
    assert unpacked(tmp_path, two, "right") == [png(6)]
    texts = columns(text=["a"], label=[1])
    with refused(SHOWN, "no column of images, only text (string), label (int64)", "choose another data set"):
        unpacked(tmp_path, texts)
    with refused("column 'text'", "holds string, not images", "choose another data set"):
        unpacked(tmp_path, texts, "text")


def test_what_the_file_calls_sound_is_no_image(tmp_path: Path) -> None:
    sound = pa.array([{"bytes": b"RIFF", "path": "a.wav"}])
    about = b'{"info": {"features": {"image": {"_type": "Image"}, "sound": {"_type": "Audio"}}}}'
    image = pa.array([png(5)], pa.binary())
    assert unpacked(tmp_path, columns({b"huggingface": about}, image=image, sound=sound)) == [png(5)]
    with refused(SHOWN, "several columns", "image, sound"):
        unpacked(tmp_path, columns({b"huggingface": b'["damaged"]'}, image=image, sound=sound))


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.OSFile", full)
    with refused("a.arrow", "No space left on device", "free space"):
        unpacked(tmp_path, parquet([png(0)]))
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
