"""A folder of images by settings alone: what is found, how it is split, and what a bad file does."""

import errno
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdvae_lr.datasets import folder
from vdvae_lr.datasets.catalogue import DataSettings, open_ffhq1024, open_splits
from vdvae_lr.datasets.decoding import UnreadableImageError
from vdvae_lr.datasets.folder import BadImages, FolderSource, find_images, open_folder
from vdvae_lr.datasets.folder_splits import split_by_name
from vdvae_lr.errors import InputError


def write_image(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)


def fill(folder: Path, count: int) -> Path:
    for number in range(count):
        write_image(folder / f"{number:03d}.png", number)
    return folder


def test_images_are_found_at_any_depth_in_order_without_hidden_ones(tmp_path: Path):
    for name in ("b/2.JPG", "a.png", "b/c/1.webp", "z.bmp", "b/._2.png", ".cache/x.png"):
        write_image(tmp_path / name) if not name.startswith("b/._") else (tmp_path / name).write_text("companion")
    (tmp_path / "notes.txt").write_text("no image")
    assert find_images(tmp_path) == ["a.png", "b/2.JPG", "b/c/1.webp", "z.bmp"]


def test_mixed_sizes_are_cut_to_one(tmp_path: Path):
    for number, size in enumerate([(8, 8), (100, 40), (3, 50), (16, 17)]):
        write_image(tmp_path / f"{number}.png", number, size)
    images = FolderSource(tmp_path, find_images(tmp_path), 16, 3).read([3, 0, 1, 2])
    assert images.shape == (4, 16, 16, 3)
    assert images[:, 0, 0, 0].tolist() == [3, 0, 1, 2]


def test_a_folder_without_images_and_no_folder_are_refused(tmp_path: Path):
    (tmp_path / "readme.txt").write_text("empty otherwise")
    with pytest.raises(InputError, match="holds no images"):
        open_folder(tmp_path, 8, 3, "stop")
    with pytest.raises(InputError, match="is not a folder"):
        open_folder(tmp_path / "nowhere", 8, 3, "stop")


def test_a_text_file_named_png_is_named_with_the_setting_that_skips_it(tmp_path: Path):
    fill(tmp_path, 3)
    (tmp_path / "001.png").write_text("not an image")
    source = FolderSource(tmp_path, find_images(tmp_path), 8, 3)
    with pytest.raises(InputError, match=r"001\.png cannot be read as an image.*--bad_images skip"):
        source.read([0, 1])


def test_skip_puts_the_next_readable_image_in_its_place_and_counts(tmp_path: Path):
    fill(tmp_path, 4)
    for name in ("001.png", "003.png"):
        (tmp_path / name).write_text("not an image")
    source = FolderSource(tmp_path, find_images(tmp_path), 8, 3, "skip")
    assert source.read([0, 1, 2, 3])[:, 0, 0, 0].tolist() == [0, 2, 2, 0]
    assert source.replaced_images == 2


def test_skip_stops_when_nothing_is_readable(tmp_path: Path):
    (tmp_path / "a.png").write_text("no")
    (tmp_path / "b.png").write_text("no")
    with pytest.raises(InputError, match="none of the 2 image files"):
        FolderSource(tmp_path, find_images(tmp_path), 8, 3, "skip").read([0])


def test_train_and_valid_subfolders_are_the_splits(tmp_path: Path):
    fill(tmp_path / "train", 5), fill(tmp_path / "valid", 2)
    splits = open_folder(tmp_path, 8, 3, "stop")
    assert (len(splits.train), len(splits.valid)) == (5, 2)
    assert splits.test is splits.valid
    fill(tmp_path / "test", 3)
    assert len(open_folder(tmp_path, 8, 3, "stop").test) == 3


@pytest.mark.parametrize("count", [3, 4, 10, 100, 3000])
def test_the_split_by_name_covers_every_image_once_and_leaves_no_part_empty(count: int):
    names = [f"{number}.png" for number in range(count)]
    train, valid, test = split_by_name(names, Path("images"))
    assert sorted(train + valid + test) == sorted(names)
    assert min(map(len, (train, valid, test))) >= 1
    if count == 3000:
        assert 100 < len(valid) < 200
        assert 100 < len(test) < 200


def test_an_added_image_moves_no_other_one():
    names = [f"{number}.png" for number in range(500)]
    before = split_by_name(names, Path("images"))
    after = split_by_name([*names, "new.png"], Path("images"))
    assert all(set(old) <= set(new) for old, new in zip(before, after, strict=True))


def test_too_few_images_for_three_parts_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="holds 2 of the 3 images"):
        open_folder(fill(tmp_path, 2), 8, 3, "stop")


def test_ffhq1024_reads_its_two_folders_and_names_a_missing_one(tmp_path: Path):
    fill(tmp_path / "ffhq1024" / "train" / "0", 2)
    with pytest.raises(InputError, match=r"ffhq1024/valid does not exist.*prepare\.py --from"):
        open_splits(DataSettings("ffhq1024", str(tmp_path)), 1024, 3)
    fill(tmp_path / "ffhq1024" / "valid", 1)
    splits = open_ffhq1024(tmp_path, "stop")
    assert splits.train.read([1]).shape == (1, 1024, 1024, 3)
    assert np.unique(splits.train.read([1])).tolist() == [1]
    assert splits.test is splits.valid


@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
def test_what_cannot_be_read_now_is_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, policy: BadImages
):
    def refuse(*arguments: object) -> None:
        raise UnreadableImageError("so it is") from OSError(number, os.strerror(number))

    source = FolderSource(fill(tmp_path, 3), find_images(tmp_path), 8, 3, policy)
    monkeypatch.setattr(folder, "decode_image", refuse)
    with pytest.raises(InputError, match=re.escape(f"000.png cannot be read ({os.strerror(number)})")):
        source.read([0])
    assert source.replaced_images == 0


def test_an_image_that_sends_its_decoder_astray_is_an_unreadable_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object) -> None:
        raise UnreadableImageError("Invalid argument") from OSError(errno.EINVAL, "Invalid argument")

    source = FolderSource(fill(tmp_path, 3), find_images(tmp_path), 8, 3)
    monkeypatch.setattr(folder, "decode_image", refuse)
    with pytest.raises(InputError, match="--bad_images skip"):
        source.read([0])
