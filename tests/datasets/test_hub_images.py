"""Data sets of the Hub: downloaded and unpacked once, the same images ever after, and a sentence for all that fails."""

import itertools
import pickle
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from loopback_faults import Fault
from loopback_hub import LoopbackHub
from made_parquet import parquet, pictures, png
from refusals import refused
from training_runs import ALONE, tiny_settings

from vdvae_lr.cli.main import main
from vdvae_lr.datasets.catalogue import DataSettings, open_splits, open_splits_together
from vdvae_lr.datasets.inventory import differences, inventory_lines, take_inventory
from vdvae_lr.datasets.loader import training_batches
from vdvae_lr.datasets.parquet_images import unpack_images
from vdvae_lr.datasets.sampler import TrainingOrder
from vdvae_lr.datasets.sources import ImageSource, Splits
from vdvae_lr.processes.world import World
from vdvae_lr.training.loop import train

NAME, REPOSITORY = "tester/photos", "datasets/tester/photos"
TRAIN, MORE, TEST = "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000.parquet"


FILES = {TRAIN: pictures(*range(10)), MORE: pictures(*range(10, 20)), TEST: pictures(*range(20, 24))}


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        hub.put(REPOSITORY, FILES)
        yield hub


@pytest.fixture(autouse=True)
def _client(hub: LoopbackHub, tmp_path: Path) -> Iterator[None]:
    with hub.client(tmp_path / "home", chunk=1024):
        yield


def opened(name: str = NAME, bad_images: Any = "stop", **settings: str) -> Splits:
    return open_splits(DataSettings("hub", name, bad_images, **settings), 8, 3)


def levels(source: ImageSource) -> list[int]:
    return source.read(range(len(source)))[:, 0, 0, 0].tolist()


def downloads(hub: LoopbackHub) -> list[str]:
    return [
        seen.path.partition("/data/")[2] for seen in hub.requests if seen.method == "GET" and "resolve" in seen.path
    ]


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_rows_are_read_in_order_and_held_out_as_the_data_set_says(hub: LoopbackHub) -> None:
    splits = opened()
    assert levels(splits.test) == [20, 21, 22, 23]
    assert sorted(levels(splits.train) + levels(splits.valid)) == [*range(20)]
    assert levels(splits.train) == sorted(levels(splits.train))
    commit = hub.repositories[REPOSITORY].refs["main"][:12]
    assert inventory_lines(splits) == [
        f"Images: 24 found, split as on the Hub at commit {commit} (train, test), with validation cut from 'train' by "
        "the rows: 19 training, 1 validation, 4 test."
    ]
    assert splits.test.describe(3) == f"{NAME}/{TEST}/000000003"


def test_without_held_out_splits_rows_are_held_out_as_images_of_a_folder_are(hub: LoopbackHub) -> None:
    hub.put("datasets/tester/one", {"images.parquet": pictures(*range(200))})
    splits = opened("tester/one")
    parts = [levels(part) for part in (splits.train, splits.valid, splits.test)]
    assert sorted(itertools.chain(*parts)) == [*range(200)]
    assert all(2 < len(part) < 25 for part in parts[1:])


def test_a_second_start_downloads_nothing_and_finds_the_same(hub: LoopbackHub, tmp_path: Path) -> None:
    before = take_inventory(opened())
    assert sorted(downloads(hub)) == sorted(Path(file).name for file in FILES)
    hub.requests.clear()
    shutil.rmtree(tmp_path / "home/hub")  # the files as they came
    assert take_inventory(opened()) == before
    assert [seen.path for seen in hub.requests] == [f"/api/{REPOSITORY}"]


@pytest.mark.parametrize("way", ["offline mode", "no network", "an outage"])
def test_after_the_first_time_no_network_is_needed(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    before = take_inventory(opened())
    match way:
        case "offline mode":
            offline(monkeypatch)
        case "no network":
            hub.faults.append(Fault("hangup"))
        case _:
            hub.faults.append(Fault("status", status=503))
    assert take_inventory(opened()) == before
    commit = hub.repositories[REPOSITORY].refs["main"]
    assert take_inventory(opened(hub_revision=commit)) == before


def test_what_the_hub_no_longer_gives_is_not_taken_from_an_earlier_answer(hub: LoopbackHub) -> None:
    opened()
    hub.repositories[REPOSITORY].visibility = "private"
    with refused(NAME, "for this login", "hf auth login"):
        opened()


def test_the_first_time_needs_a_network(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, refused(NAME, "HF_HUB_OFFLINE forbids", "unset it"):
        offline(patch)
        opened()
    hub.faults.append(Fault("hangup"))
    with refused(NAME, "cannot be reached", "check the connection"):
        opened()
    hub.faults[:] = [Fault("status", status=500)]
    with refused(NAME, "answers 500", "try again later"):
        opened()


def test_after_a_broken_download_only_the_missing_files_are_fetched(hub: LoopbackHub) -> None:
    hub.faults.append(Fault("cut", MORE))  # the last one
    with refused(NAME, "cannot be reached", "check the connection"):
        opened()
    hub.faults.clear()
    hub.requests.clear()
    assert levels(opened().test) == [20, 21, 22, 23]
    assert downloads(hub) == [Path(MORE).name]


def test_what_a_killed_process_left_is_made_again(hub: LoopbackHub, tmp_path: Path) -> None:
    before = levels(opened().test)
    for path in (tmp_path / "home/assets").rglob("*.arrow"):
        path.rename(path.with_name(f".{path.name}.part"))
        path.with_name(f".{path.name}.part").write_bytes(b"half")
    hub.requests.clear()
    assert levels(opened().test) == before
    assert downloads(hub) == []
    assert list((tmp_path / "home").rglob("*.part")) == []


def test_of_two_that_start_together_one_downloads_and_unpacks_each_file(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = []

    def slowly(parquet: Path, shown: str, *rest: Any) -> None:
        unpacked.append(shown)
        time.sleep(0.1)  # so that the other one comes, too
        unpack_images(parquet, shown, *rest)

    monkeypatch.setattr("vdvae_lr.datasets.hub_images.unpack_images", slowly)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: take_inventory(opened()), range(2))
    assert one == other
    assert sorted(downloads(hub)) == sorted(Path(file).name for file in FILES)
    assert sorted(unpacked) == sorted(f"{NAME}/{file}" for file in FILES)


def test_of_a_run_the_main_process_comes_first(
    hub: LoopbackHub,
    in_worlds: Callable[[int, Callable[[World], Splits]], list[Splits]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where locks do not work, as on some shared file systems."""
    monkeypatch.setattr("vdvae_lr.processes.world._MEETING_EVERY_S", 0.01)
    found = in_worlds(2, lambda world: open_splits_together(DataSettings("hub", NAME), 8, 3, world))
    assert take_inventory(found[0]) == take_inventory(found[1])
    asked = [seen.path for seen in hub.requests]
    assert asked.count(f"/api/{REPOSITORY}") == 2
    assert asked[-1] == f"/api/{REPOSITORY}"  # the second process asks when the first has everything


def test_another_revision_has_other_images_and_a_readme_changes_nothing(hub: LoopbackHub) -> None:
    first, before = hub.repositories[REPOSITORY].refs["main"], take_inventory(opened())
    hub.put(REPOSITORY, {"README.md": b"# Photos\n"})
    assert differences(before, take_inventory(opened())) == []
    hub.put(REPOSITORY, {MORE: pictures(*range(50, 60))})
    now = take_inventory(opened())
    assert differences(before, now) == ["train: 19 other images", "valid: 1 other images"]
    assert now["test"] == before["test"]
    assert take_inventory(opened(hub_revision=first)) == before


def test_a_subset_of_the_readme_is_taken(hub: LoopbackHub) -> None:
    head = "---\nconfigs:\n- config_name: {}\n  data_files:\n  - split: all\n    path: data/test*\n---\n"
    hub.put(REPOSITORY, {"README.md": head.format("small").encode()})
    hub.put("datasets/tester/more", {**FILES, "extra/extra-00000-of-00001.parquet": b"never read"})
    assert opened("tester/more").left_out == {"file of split 'extra'": 1}
    splits = opened(hub_subset="small")
    assert len(splits.train) + len(splits.valid) + len(splits.test) == 4
    with refused(NAME, "no subset 'large'", "from small"):
        opened(hub_subset="large")


def test_a_file_in_both_a_held_out_split_and_train_is_held_out(hub: LoopbackHub) -> None:
    head = "---\nconfigs:\n- data_files: [{split: train, path: data/*}, {split: test, path: data/test*}]\n---\n"
    hub.put(REPOSITORY, {"README.md": head.encode()})
    splits = opened()
    assert levels(splits.test) == [20, 21, 22, 23]
    assert max(levels(splits.train)) < 20


@pytest.mark.parametrize("content", [b"", b"PAR1 and then nothing PAR1", FILES[TRAIN][:-20], None], ids=range(4))
def test_a_damaged_file_is_named_and_what_was_unpacked_stays(
    hub: LoopbackHub, tmp_path: Path, content: bytes | None
) -> None:
    spoilt = bytearray(parquet([png(1)] * 9, compression="NONE"))
    spoilt[4:200] = bytes(196)  # the first page of the first column
    hub.put(REPOSITORY, {MORE: bytes(spoilt) if content is None else content})
    with refused(f"{NAME}/{MORE}", "is damaged or no Parquet file", "--hub_revision"):
        opened()
    assert len(list((tmp_path / "home/assets").rglob("images/files/*.arrow"))) == 2  # those of the other files
    hub.put(REPOSITORY, FILES)
    assert levels(opened().test) == [20, 21, 22, 23]


def test_a_split_without_rows_is_refused(hub: LoopbackHub) -> None:
    hub.put(REPOSITORY, {TEST: parquet([])})
    with refused(NAME, "split 'test'", "--hub_splits"):
        opened()


def test_a_bad_image_is_named_or_replaced(hub: LoopbackHub) -> None:
    images = [png(0), b"no image", None, png(3)]
    hub.put(REPOSITORY, {TEST: parquet(images)})
    for row, reason in ((1, "of a kind that is not read"), (2, "the row has no bytes")):
        with refused(f"{NAME}/{TEST}/00000000{row}", reason, "--hub_revision, or let other images"):
            opened().test.read([row])
    skipping = opened(bad_images="skip").test
    assert levels(skipping) == [0, 3, 3, 3]
    assert skipping.replaced_images == 2


def test_many_processes_read_one_data_set() -> None:
    source = opened().train

    def first(workers: int) -> list[list[int]]:
        batches = training_batches(source, TrainingOrder(len(source), 4, 4, 0, 1, 0), 0, workers, pin_memory=False)
        return [next(batches).pixels[:, 0, 0, 0].tolist() for _ in range(6)]

    assert first(2) == first(0)
    assert len(pickle.dumps(source)) < 20_000  # no images travel


def test_a_file_that_is_unpacked_and_then_lost_is_named(tmp_path: Path) -> None:
    source = opened().test
    for path in (tmp_path / "home/assets").rglob("*.arrow"):
        path.unlink()
        path.write_bytes(b"damaged")
    with refused(".arrow", "is damaged or gone", "delete it and run the same command again"):
        opened()
    shutil.rmtree(tmp_path / "home/assets")
    with refused(".arrow", "is damaged or gone", "delete it and run the same command again"):
        pickle.loads(pickle.dumps(source)).read([0])  # as a reader that starts later
    assert levels(source) == [20, 21, 22, 23]  # what is mapped already stays


@pytest.mark.parametrize(
    ("visibility", "settings", "cause", "remedy"),
    [
        ("public", {"name": "tester/none"}, "there is no repository tester/none", "check its name, or log in"),
        ("private", {}, f"there is no repository {NAME}", "hf auth login"),
        ("gated", {}, "is gated", "ask for access on its page, then log in"),
        ("public", {"hub_revision": "v2"}, "no revision 'v2'", "branches, tags or commits"),
        ("public", {"name": "photos"}, "'photos' is no data set of the Hub", "OWNER/NAME"),
        ("public", {"name": f"https://huggingface.co/{REPOSITORY}"}, "is no data set of the Hub", "OWNER/NAME"),
        ("public", {"name": "../../etc"}, "is no data set of the Hub", "OWNER/NAME"),
        ("public", {"name": ""}, "needs the name of a data set", "OWNER/NAME with --data_root"),
    ],
)
def test_what_the_hub_does_not_give_is_refused(
    hub: LoopbackHub, visibility: Any, settings: dict[str, str], cause: str, remedy: str
) -> None:
    hub.repositories[REPOSITORY].visibility = visibility
    with refused("", cause, remedy):
        opened(**settings)


def test_settings_of_the_hub_are_refused_for_other_data() -> None:
    with refused("hub_column", "is for data set 'hub' only", "--dataset hub"):
        DataSettings("folder", hub_column="image")


def test_nothing_but_parquet_files_is_fetched(hub: LoopbackHub) -> None:
    script = b"raise SystemExit('a loading script was run')"
    hub.put(REPOSITORY, {"photos.py": script, "README.md": b"---\ntags: [x]\n---\n", "data/0.png": png(1)})
    opened()
    assert all(name.endswith(".parquet") for name in downloads(hub))
    hub.put("datasets/tester/script", {"script.py": script, "images.zip": b"PK"})
    with refused("tester/script", "no .parquet files", "--dataset folder"):
        opened("tester/script")


def test_without_pyarrow_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with refused("pyarrow", "is not installed", "pip install 'vdvae_lr[hub-data]'"):
        opened()


def test_a_run_goes_on_offline_bit_for_bit_and_commands_find_its_images(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"dataset": "hub", "data_root": NAME, "hub_column": "image", "save_dir": str(tmp_path), "desc": "run"}
    values |= {"num_images_visualize": 1, "iters_per_images": 4, "iters_per_eval": 4, "iters_per_save": 2, "iters": 4}
    last = tmp_path / "run/checkpoints/step-00000004"
    assert train(tiny_settings(**values), ALONE) == 0
    unbroken = (last / "model.safetensors").read_bytes()
    shutil.rmtree(last)  # back to step 2
    offline(monkeypatch)
    assert train(tiny_settings(**values), ALONE) == 0
    assert (last / "model.safetensors").read_bytes() == unbroken
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    first = hub.repositories[REPOSITORY].refs["main"]
    hub.put(REPOSITORY, {MORE: pictures(*range(9))})
    shutil.rmtree(last)
    with refused("at step 2", "18 images", "name their commit with --hub_revision"):
        train(tiny_settings(**values), ALONE)
    assert train(tiny_settings(hub_revision=first, **values), ALONE) == 0
    assert (last / "model.safetensors").read_bytes() == unbroken
    capsys.readouterr()
    words = ["noise", f"run={tmp_path / 'run'}", "--variances", "0.3", "--images", "0", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "Images: 24 found, split as on the Hub at commit" in capsys.readouterr().out
    assert main([*words, "--hub_column", "label"]) == 2
    assert "column 'label' of" in capsys.readouterr().err
