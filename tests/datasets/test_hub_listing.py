"""Which Parquet files of a Hub data set are which split: as the README's head says, else as the names tell."""

import pytest
from refusals import refused

from vdvae_lr.datasets.hub_listing import Listing, chosen_splits, splits_of

NAME = "tester/photos"


def listing(*files: str, configs: list[object] | None = None) -> Listing:
    return Listing("c0ffee" * 7, dict.fromkeys(files, "digest"), configs or [])


def splits(*files: str, configs: list[object] | None = None, subset: str = "") -> dict[str, list[str]]:
    return {split: [*found] for split, found in splits_of(NAME, listing(*files, configs=configs), subset).items()}


@pytest.mark.parametrize(
    "expected",
    [
        {"train": ["data.parquet"]},
        {"train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
         "test": ["data/test-00000-of-00001.parquet"]},
        {"full": ["data/full-00000-of-00001-5c6dd19d2b8a1f2e.parquet"]},
        {"train": ["train/cats.parquet"], "val": ["val/test_cats.parquet"]},
        {"test": ["my_test_file.parquet"], "train": ["mytestfile.parquet"]},
        {"train": ["de/train-00000-of-00001.parquet", "en/train-00000-of-00001.parquet"]},
        {"train": ["default/train/0000.parquet"], "test": ["default/test/0000.parquet"]},
    ],
)  # fmt: skip
def test_names_tell_the_splits(expected: dict[str, list[str]]) -> None:
    files = [file for of_split in expected.values() for file in of_split]
    assert splits(*files) == splits(*reversed(files)) == expected


FILES = ("a/train-0.parquet", "a/test-0.parquet", "b/x.parquet", "b/c/y.parquet")


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([{"split": "train", "path": "a/train-*"}, {"split": "held", "path": ["a/test-*", "b/**"]}],
         {"train": ["a/train-0.parquet"], "held": ["a/test-0.parquet", "b/c/y.parquet", "b/x.parquet"]}),
        ("b/**/y.parquet", {"train": ["b/c/y.parquet"]}),
        (["./b/x.parquet", "a/t*"], {"train": ["a/test-0.parquet", "a/train-0.parquet", "b/x.parquet"]}),
        ({"train": "**/*.parquet", "none": "z*"}, {"train": sorted(FILES)}),
        ({"train": None, "test": ["a/test-0.parquet", 7]}, {"test": ["a/test-0.parquet"]}),
    ],
)  # fmt: skip
def test_the_readme_tells_the_splits_in_every_form(stated: object, expected: dict[str, list[str]]) -> None:
    assert splits(*FILES, configs=[{"config_name": "default", "data_files": stated}]) == expected


def test_patterns_may_begin_in_a_folder_of_their_own() -> None:
    config = {"config_name": "x", "data_dir": "b", "data_files": "x.parquet"}
    assert splits(*FILES, "x.parquet", configs=[config]) == {"train": ["b/x.parquet"]}


@pytest.mark.parametrize("config", [7, {}, {"data_files": 3}, {"data_files": [["a"]]}, {"data_files": {"train": {}}}])
def test_a_damaged_head_of_a_readme_is_not_used(config: object) -> None:
    assert splits("train.parquet", configs=[config]) == {"train": ["train.parquet"]}


SUBSETS: list[object] = [
    {"config_name": "cats", "data_files": "a/train-*"},
    {"config_name": "dogs", "data_files": "b/**"},
    {"config_name": "texts", "data_files": "*.json"},
]


def test_one_of_several_subsets_has_to_be_chosen() -> None:
    with refused(NAME, "several subsets", "--hub_subset from cats, dogs"):
        splits(*FILES, configs=SUBSETS)
    with refused(NAME, "no subset 'dog' (did you mean 'dogs'?)", "--hub_subset from cats, dogs"):
        splits(*FILES, configs=SUBSETS, subset="dog")
    assert splits(*FILES, configs=SUBSETS, subset="dogs") == {"train": ["b/c/y.parquet", "b/x.parquet"]}
    marked = {"config_name": "all", "data_files": "**/*.parquet", "default": True}
    assert splits(*FILES, configs=[*SUBSETS, marked]) == {"train": sorted(FILES)}
    converted = ("cats/train/0000.parquet", "dogs/train/0000.parquet")
    with refused(NAME, "several subsets", "--hub_subset from cats, dogs"):
        splits(*converted)
    assert splits(*converted, subset="cats") == {"train": ["cats/train/0000.parquet"]}


def test_a_repository_without_parquet_files_is_refused_with_two_ways_out() -> None:
    with refused(NAME, "no .parquet files", "--hub_revision refs/convert/parquet, or download its images"):
        splits()


@pytest.mark.parametrize(
    ("known", "wanted", "expected"),
    [
        ("train", "", ("train", None, None)),
        ("full", "", ("full", None, None)),
        ("test,train", "", ("train", None, "test")),
        ("train,validation,test,extra", "", ("train", "validation", "test")),
        ("Train,dev", "", ("Train", "dev", None)),
        ("train,test,extra", "extra", ("extra", None, None)),
        ("train,test,extra", "extra, test", ("extra", "test", None)),
        ("a,b,c", "c,b,a", ("c", "b", "a")),
        ("a,b,c", "c,b,b", ("c", "b", None)),
        ("test", "test", ("test", None, None)),
    ],
)
def test_splits_with_the_usual_names_or_those_that_are_given(
    known: str, wanted: str, expected: tuple[str, str | None, str | None]
) -> None:
    assert chosen_splits(NAME, known.split(","), wanted) == expected


@pytest.mark.parametrize(
    ("known", "wanted", "cause"),
    [
        ("a,b", "", "not clear which to train on"),
        ("test", "", "not clear which to train on"),
        ("train,val,validation", "", "not clear which to train on"),
        ("train,test", "train,tset", "no 'tset' (did you mean 'test'?)"),
        ("train,test", "train,", "no ''"),
        ("a,b,c,d", "a,b,c,d", "three parts to fill"),
        ("train,test", "train,test,train", "would train on held-out images"),
    ],
)
def test_unclear_splits_are_refused(known: str, wanted: str, cause: str) -> None:
    with refused("", cause, "--hub_splits" if "held-out" not in cause else "another split"):
        chosen_splits(NAME, known.split(","), wanted)
