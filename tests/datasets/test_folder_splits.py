"""Which folders are the parts of a split: understood, or refused with the right name; never trained on by mistake."""

import hashlib
import os
from pathlib import Path

import pytest
from PIL import Image
from refusals import refused

from vdvae_lr.datasets.folder import open_folder
from vdvae_lr.datasets.folder_splits import split_by_name
from vdvae_lr.datasets.sources import ImageSource, Splits


def fill(folder: Path, count: int = 6) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    return folder


def made(root: Path, *folders: str) -> Path:
    for name in folders:
        fill(root / name)
    return root


def opened(root: Path) -> Splits:
    return open_folder(root, 8, 3, "stop")


def paths(source: ImageSource) -> set[Path]:
    """The real files of a split."""
    return {Path(source.describe(index)).resolve() for index in range(len(source))}


def parts_of(root: Path) -> list[set[str]]:
    """Of training, validation and test: the folders right below `root` that their images lie in."""
    splits = opened(root)
    return [
        {path.relative_to(root.resolve()).parts[0] for path in paths(source)}
        for source in (splits.train, splits.valid, splits.test)
    ]


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training"])
@pytest.mark.parametrize(
    "held_out",
    ["valid", "val", "Val", "VALIDATION", "dev", "eval", "holdout", "held_out", "held-out"],
)
def test_a_validation_folder_by_any_usual_name_is_validation_and_test(
    tmp_path: Path, train: str, held_out: str
) -> None:
    made(tmp_path, train, held_out)
    assert parts_of(tmp_path) == [{train}, {held_out}, {held_out}]


@pytest.mark.parametrize("test", ["test", "Test", "testing"])
def test_all_three_are_the_parts(tmp_path: Path, test: str) -> None:
    made(tmp_path, "train", "val", test)
    assert parts_of(tmp_path) == [{"train"}, {"val"}, {test}]


def test_beside_a_test_folder_alone_validation_is_cut_from_train(tmp_path: Path) -> None:
    fill(tmp_path / "train", 200), fill(tmp_path / "test", 3)
    splits = opened(tmp_path)
    assert len(splits.test) == 3
    assert 2 < len(splits.valid) < 30
    assert len(splits.train) + len(splits.valid) == 200
    assert paths(splits.train) | paths(splits.valid) == {path.resolve() for path in (tmp_path / "train").iterdir()}
    assert "validation cut from 'train'" in splits.how


def test_the_cut_leaves_no_part_empty_and_is_that_of_the_whole_folder() -> None:
    assert list(map(len, split_by_name(["a", "b"], Path("train"), held_out_parts=1))) == [1, 1]
    with refused("train", "holds 1 of the 2 images", "add images"):
        split_by_name(["a"], Path("train"), held_out_parts=1)
    names = [f"train/{number}.png" for number in range(500)]
    train, valid = split_by_name(names, Path("train"), held_out_parts=1)
    assert valid == split_by_name(names, Path())[1]
    assert sorted(train + valid) == sorted(names)


def test_what_lies_beside_the_parts_is_left_out_and_said(tmp_path: Path) -> None:
    made(tmp_path, "train", "val", "extra", ".hidden", "")
    splits = opened(tmp_path)
    assert parts_of(tmp_path) == [{"train"}, {"val"}, {"val"}]
    assert {what: count for what, count in splits.left_out.items() if count} == {
        "folder 'extra' beside 'train'": 1,
        "image beside 'train'": 6,
    }


@pytest.mark.parametrize("folders", [["train"], ["training"], ["train", "cats"], ["cats", "dogs"], ["cats", "train"]])
def test_without_a_held_out_folder_all_images_are_split_by_name(tmp_path: Path, folders: list[str]) -> None:
    splits = opened(made(tmp_path, *folders))
    assert sum(map(len, (splits.train, splits.valid, splits.test))) == 6 * len(folders)
    assert splits.how == "by their names"


@pytest.mark.parametrize("folders", [["val"], ["test"], ["cats", "Test"], ["valid", "test"], ["dev", "cats", "dogs"]])
def test_held_out_folders_without_train_are_refused(tmp_path: Path, folders: list[str]) -> None:
    made(tmp_path, *folders)
    with refused(str(tmp_path), "look held out, but no folder 'train'", "rename"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "part"),
    [("val", "valid", "valid"), ("dev", "eval", "valid"), ("test", "testing", "test"), ("train", "training", "train")],
)
def test_two_folders_for_one_part_are_refused(tmp_path: Path, one: str, other: str, part: str) -> None:
    made(tmp_path, "train", "val", one, other)
    with refused(str(tmp_path), f"would both be '{part}'", f"called '{part}'"):
        opened(tmp_path)


def test_two_cases_of_one_name_are_refused_where_a_disk_tells_them_apart(tmp_path: Path) -> None:
    made(tmp_path, "train", "val")
    if (tmp_path / "VAL").exists():
        pytest.skip("this disk takes VAL for val")
    made(tmp_path, "VAL")
    with refused("'VAL' and 'val'", "would both be 'valid'", "keep one"):
        opened(tmp_path)


def test_two_names_of_one_folder_are_one(tmp_path: Path) -> None:
    made(tmp_path, "train", "val")
    (tmp_path / "valid").symlink_to("val")
    assert parts_of(tmp_path) == [{"train"}, {"val"}, {"val"}]


@pytest.mark.parametrize(
    ("train", "held_out", "right"),
    [
        ("train2017", "val2017", "'train2017' to 'train', 'val2017' to 'valid'"),
        ("train", "test_images", "'test_images' to 'test'"),
        ("trainset", "TestSet", "'TestSet' to 'test', 'trainset' to 'train'"),
        ("train", "validation-set 2", "'validation-set 2' to 'valid'"),
    ],
)
def test_names_that_are_only_like_those_of_parts_are_refused_with_the_right_ones(
    tmp_path: Path, train: str, held_out: str, right: str
) -> None:
    made(tmp_path, train, held_out)
    with refused(str(tmp_path), "look like parts of a split", f"rename {right}"):
        opened(tmp_path)


@pytest.mark.parametrize("folders", [["test tubes", "bottles"], ["valleys", "trains"], ["train", "evaluations of x"]])
def test_classes_whose_names_only_begin_alike_are_classes(tmp_path: Path, folders: list[str]) -> None:
    assert opened(made(tmp_path, *folders)).how == "by their names"


@pytest.mark.parametrize("above", ["photos", "images/small", "bottle"])
def test_parts_further_down_are_refused_with_the_folder_to_name(tmp_path: Path, above: str) -> None:
    made(tmp_path, f"{above}/train/good", f"{above}/val/good", "others")
    with refused(f"{tmp_path}/{above}", "would be trained on", "--data_root"):
        opened(tmp_path)
    assert len(opened(tmp_path / above).train) == 6


def test_inside_a_part_a_class_may_be_called_as_it_likes(tmp_path: Path) -> None:
    made(tmp_path, "train/test", "train/train", "valid/test", "valid/train")
    splits = opened(tmp_path)
    assert (len(splits.train), len(splits.valid)) == (12, 12)


LINKS = [
    ("train/more", "../val"),
    ("train/up", ".."),
    ("train/own/x.png", "../../val/0.png"),
    ("val/more", "../train/own"),
    ("val/x.png", "../train/own/0.png"),
]


@pytest.mark.parametrize(("link", "target"), LINKS)
def test_no_link_brings_a_held_out_image_into_training(tmp_path: Path, link: str, target: str) -> None:
    made(tmp_path, "train", "train/own", "val")
    (tmp_path / link).symlink_to(target)
    splits = opened(tmp_path)
    assert paths(splits.train) and not paths(splits.train) & paths(splits.valid)
    assert len(paths(splits.train)) == len(splits.train)


def test_parts_that_are_one_folder_are_refused(tmp_path: Path) -> None:
    made(tmp_path, "train")
    (tmp_path / "val").symlink_to("train")
    with refused("train", "holds no images", "put"):
        opened(tmp_path)


def test_parts_may_be_links(tmp_path: Path) -> None:
    pool = made(tmp_path / "pool", "a", "b")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "train").symlink_to(pool / "a")
    (tmp_path / "root" / "val").symlink_to(pool / "b")
    splits = opened(tmp_path / "root")
    assert paths(splits.train) == {path.resolve() for path in (pool / "a").iterdir()}
    assert paths(splits.valid) == {path.resolve() for path in (pool / "b").iterdir()}


def test_a_folder_without_rights_is_no_missing_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "train", "val")
    scan = os.scandir

    def scandir(path: Path):
        if Path(path).name == "val":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with refused("val", "cannot be read (Permission denied)", "right to read"):
        opened(tmp_path)


def test_the_split_of_ordinary_names_is_what_it_always_was() -> None:
    """Pinned: were it to move, held-out images of runs that exist would be trained on."""
    names = [f"{folder}/{number}.png" for folder in ("cat", "hünd") for number in range(200)]
    train, valid, test = split_by_name(names, Path("images"))
    digests = {name: hashlib.sha256(name.encode()).digest()[:8] for name in names}
    place = {name: int.from_bytes(digest, "big") / 2**64 for name, digest in digests.items()}
    assert valid == sorted(name for name in names if place[name] < 0.05)
    assert test == sorted(name for name in names if 0.05 <= place[name] < 0.1)
    assert (len(train), valid[:2], test[:2]) == (358, ["cat/10.png", "cat/146.png"], ["cat/133.png", "cat/153.png"])
