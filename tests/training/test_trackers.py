"""Trackers show what the log has, and whatever they do, the run goes on."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from training_runs import ALONE, tiny_settings, write_images
from wandb_records import wandb_records, wandb_rows

from vdvae_lr.errors import InputError
from vdvae_lr.training import loop, trackers
from vdvae_lr.training.loop import train
from vdvae_lr.training.trackers import TrackedRun, Trackers, check_installed, chosen_trackers

LOST = "wandb no longer tracks the run: "
FAKE = """
import json, os, sys, time
BEHAVIOUR = os.environ["BEHAVIOUR"]
def note(*words):
    with open(os.environ["NOTES"], "a") as file:
        file.write(json.dumps(words) + "\\n")
class Settings(dict):
    def __init__(self, **options): super().__init__(options)
class Run:
    def define_metric(self, *words, **options): pass
    def log(self, row):
        if BEHAVIOUR == "dies in log": os._exit(7)
        if BEHAVIOUR == "raises in log": raise RuntimeError("the service is gone\\nand more")
        note("log", row)
    def finish(self, exit_code):
        if BEHAVIOUR == "hangs in finish": time.sleep(600)
        note("finish", exit_code)
def Image(path): return path
def teardown(): note("teardown")
def init(**options):
    print("wandb: hello"); print("wandb: hello", file=sys.stderr); os.write(1, b"hello"); os.write(2, b"hello")
    if BEHAVIOUR == "asks": input("your key? ")
    if BEHAVIOUR == "no account": raise ValueError("No API key configured. Use `wandb login` to log in.")
    if BEHAVIOUR == "hangs in init": time.sleep(600)
    note("init", options["id"], options["resume"], options["name"], options["project"], options["config"])
    return Run()
"""
"""A package `wandb` that does what BEHAVIOUR says."""


@pytest.fixture
def behave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes `import wandb` of tracker processes a fake that behaves so; returns the file of its notes."""
    package = tmp_path / "fake"
    package.mkdir()
    (package / "wandb.py").write_text(FAKE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(package))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))

    def choose(behaviour: str) -> Path:
        monkeypatch.setenv("BEHAVIOUR", behaviour)
        return tmp_path / "notes"

    return choose


@pytest.fixture
def tracked(tmp_path: Path) -> TrackedRun:
    (tmp_path / "run").mkdir()
    return TrackedRun(tmp_path / "run", "project", "a/b", {"lr": 0.5, "skip_threshold": float("inf")}, 0)


def notes_in(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def soon(true: Callable[[], bool]) -> bool:
    """Whether it becomes true within some seconds."""
    end = time.monotonic() + 20
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


@pytest.mark.parametrize(
    ("track", "names"),
    [("", ()), ("none", ()), (" wandb , tensorboard,wandb,", ("wandb", "tensorboard")), ("trackio", ("trackio",))],
)
def test_names(track: str, names: tuple[str, ...]) -> None:
    assert chosen_trackers(track) == names


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"there is no tracker 'wanb' \(did you mean 'wandb'\?\); track takes"):
        tiny_settings(track="tensorboard,wanb")
    with pytest.raises(InputError, match="track_project is empty"):
        tiny_settings(track_project=" ")


def test_a_tracker_that_is_not_installed_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    folder = ModuleSpec("wandb", None)  # what Python finds in a working folder with wandb's files of earlier runs

    def found(name: str, package: str | None = None) -> ModuleSpec | None:
        return {"wandb": folder, "trackio": None}[name] if name in ("wandb", "trackio") else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    check_installed("tensorboard")
    with pytest.raises(InputError, match=r"trackio, which is not installed; pip install 'vdvae_lr\[trackio\]'"):
        check_installed("tensorboard,trackio")
    settings = tiny_settings(data_root=str(tmp_path / "absent"), save_dir=str(tmp_path / "runs"), track="wandb")
    with pytest.raises(InputError, match=r"wandb, which is not installed; pip install 'vdvae_lr\[wandb\]'"):
        train(settings, ALONE)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ("no account", "no account is set up on this machine; run `wandb login`, or set WANDB_MODE=offline."),
        ("asks", "EOFError: EOF when reading a line."),
        ("dies in log", "its process ended with code 7."),
        ("raises in log", "RuntimeError: the service is gone."),
    ],
)
def test_a_failing_tracker_is_one_line(
    behave: Callable[[str], Path],
    tracked: TrackedRun,
    capfd: pytest.CaptureFixture[str],
    behaviour: str,
    reason: str,
) -> None:
    behave(behaviour)
    said: list[str] = []
    shown = Trackers("wandb", tracked, said.append)
    for iteration in range(3):
        shown.write("train", iteration, {"train/rate": 0.5})
    assert soon(lambda: shown.write("train", 3, {"train/rate": 0.5}) or bool(said))
    shown.write("train", 4, {"train/rate": 0.5})
    shown.close(failed=False)
    assert said == [f"warning: {LOST}{reason}"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("behaviour", ["hangs in init", "hangs in finish"])
def test_a_tracker_that_hangs_is_ended(
    behave: Callable[[str], Path], tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setattr(trackers, "_FINISH_S", 1.0)
    behave(behaviour)
    said: list[str] = []
    shown = Trackers("wandb", tracked, said.append)
    start = time.monotonic()
    for iteration in range(200):
        shown.write("train", iteration, {f"train/{number}": 0.5 for number in range(100)})  # more than a pipe holds
    assert time.monotonic() - start < 1
    shown.close(failed=False)
    assert time.monotonic() - start < 10
    assert said == [
        f"warning: {LOST}it did not finish within 1 s; its last numbers may be missing (log.jsonl has them)."
    ]


def test_a_run_that_goes_on_keeps_its_id_and_sends_nothing_twice(
    behave: Callable[[str], Path], tracked: TrackedRun, tmp_path: Path
) -> None:
    notes, said = behave("works"), []
    for iterations, failed in ((range(1, 6), True), (range(3, 5), False), (range(3, 8), False)):
        shown = Trackers("wandb", tracked, said.append)
        for iteration in iterations:
            shown.write("train", iteration, {"train/rate": iteration / 2})
        shown.write("eval", iterations[-1], {"eval/rate": 0.0})
        shown.picture(iterations[-1], tmp_path / "a.png")
        shown.close(failed=failed)
    kinds = [note[0] for note in notes_in(notes)]
    assert kinds.count("init") == kinds.count("finish") == kinds.count("teardown") == 3
    (first, *others) = [note[1:] for note in notes_in(notes) if note[0] == "init"]
    assert others == [first, first] and first[1:] == ["allow", "a/b", "project", dict(tracked.config)]
    rows = [note[1] for note in notes_in(notes) if note[0] == "log"]
    assert [row["iteration"] for row in rows if "train/rate" in row] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["iteration"] for row in rows if "eval/rate" in row] == [5, 7]
    assert [row for row in rows if "pictures" in row][1] == {"iteration": 7, "pictures": str(tmp_path / "a.png")}
    assert [note[1] for note in notes_in(notes) if note[0] == "finish"] == [1, 0, 0]
    assert not said


def test_a_killed_run_leaves_no_process_and_has_failed(behave: Callable[[str], Path], tracked: TrackedRun) -> None:
    notes = behave("works")
    script = (
        "import os, signal, time\nfrom pathlib import Path\nfrom vdvae_lr.training.trackers import *\n"
        f"run = TrackedRun(Path({str(tracked.folder)!r}), 'p', 'n', {{}}, 0)\n"
        "shown = Trackers('wandb', run, print)\nshown.write('train', 1, {'train/rate': 0.5})\n"
        "print(shown._open['wandb']._process.pid, flush=True)\ntime.sleep(600)\n"
    )
    checkout = str(Path(__file__).parents[2])
    path = os.pathsep.join([os.environ["PYTHONPATH"], checkout])
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}) as run:
        assert run.stdout is not None
        tracker = int(run.stdout.readline())
        assert soon(lambda: any(note[0] == "log" for note in notes_in(notes)))
        run.kill()
    assert soon(lambda: ["finish", 1] in notes_in(notes))
    assert soon(lambda: not Path(f"/proc/{tracker}").exists() or "Z" in Path(f"/proc/{tracker}/stat").read_text())


def test_what_trackio_only_warns_of_is_said(
    tmp_path: Path, tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = (
        "import warnings\nclass Run:\n"
        "    def log(self, row, step): warnings.warn('trackio failed to write:\\n no space')\n"
        "    def finish(self): warnings.warn('trackio failed again')\n"
        "def init(*words, **options): warnings.warn('old code'); return Run()\n"
    )
    (tmp_path / "trackio.py").write_text(fake, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    said: list[str] = []
    shown = Trackers("trackio", tracked, said.append)
    shown.write("train", 1, {"train/rate": 0.5})
    shown.close(failed=False)
    assert len(said) == 1 and said[0].startswith("warning: trackio says: trackio failed to write: no space")


def test_tensorboard_that_fails_is_one_line_too(tracked: TrackedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    shown = Trackers("tensorboard", tracked, said.append)

    def full(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    for iteration in range(3):
        shown.write("train", iteration, {"train/rate": 0.5})
    shown.close(failed=False)
    assert said == ["warning: tensorboard no longer tracks the run: OSError: [Errno 28] No space left on device."]


def test_an_error_of_the_run_is_an_error_in_its_trackers(
    behave: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = behave("works")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: ModuleSpec(name, None, origin="here"))
    monkeypatch.setattr(loop, "_iterate", lambda *_: (_ for _ in ()).throw(ZeroDivisionError))
    images = write_images(tmp_path / "images")
    settings = tiny_settings(data_root=str(images), save_dir=str(tmp_path), desc="run", track="wandb")
    with pytest.raises(ZeroDivisionError):
        train(settings, ALONE)
    assert ["finish", 1] in notes_in(notes)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went on once, with every tracker that is installed; wandb is offline, trackio local."""
    folder = tmp_path_factory.mktemp("tracked")
    installed = [name for name in ("wandb", "trackio") if importlib.util.find_spec(name)]
    images = str(write_images(folder / "images", 80))
    common = {
        "data_root": images,
        "save_dir": str(folder),
        "desc": "run",
        "track_project": "tests",
        "watch_examples": 0,
    }
    common |= {"track": ",".join(["tensorboard", *installed]), "iters_per_print": 1, "iters_per_images": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        assert train(tiny_settings(**common, iters=6), ALONE) == 0
        newest = folder / "run" / "checkpoints" / "step-00000006"
        newest.rename(folder / "lost")  # as if the run had been killed before it was whole
        assert train(tiny_settings(**common, iters=6), ALONE) == 0
    return folder / "run"


def logged_numbers(run: Path) -> dict[tuple[str, int], float]:
    """The numbers of the log by curve and iteration, without lists."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return {
        (f"{record['kind']}/{name}", record["iteration"]): value
        for record in records
        if record["kind"] in ("train", "eval")
        for name, value in record.items()
        if name not in ("kind", "iteration") and isinstance(value, int | float)
    }


def numbers_in(rows: list[dict[str, Any]], iteration: str) -> list[tuple[tuple[str, int], float]]:
    return [
        ((name, row[iteration]), value)
        for row in rows
        for name, value in row.items()
        if name.startswith(("train/", "eval/"))
    ]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened)


def test_tensorboard_has_the_log_and_the_pictures(whole_run: Path) -> None:
    events = EventAccumulator(str(whole_run / "tensorboard"))
    events.Reload()
    shown = {(tag, point.step): point.value for tag in events.Tags()["scalars"] for point in events.Scalars(tag)}
    expected = logged_numbers(whole_run)
    assert {key: shown[key] for key in expected} == pytest.approx(expected)
    assert all(key in expected for key in shown if not key[0].startswith("eval_group_rate/"))
    assert [image.step for image in events.Images("pictures")] == [3, 6]
    assert events.Images("pictures")[0].encoded_image_string[:4] == b"\x89PNG"
    (settings,) = events.Tensors("settings/text_summary")
    assert b"    iters_per_print = 1\n" in settings.tensor_proto.string_val[0]


def test_wandb_has_the_log_the_pictures_and_the_settings(whole_run: Path) -> None:
    pytest.importorskip("wandb")
    rows = wandb_rows(whole_run / "wandb")
    found = numbers_in(rows, "iteration")
    assert dict(found) == pytest.approx(logged_numbers(whole_run)) and len(dict(found)) == len(found)
    assert any(name.startswith("eval_group_rate/00_") for row in rows for name in row)
    pictures = {row["iteration"]: row["pictures.path"] for row in rows if "pictures.path" in row}
    assert list(pictures) == [3, 6]
    for iteration, name in pictures.items():
        (path,) = (whole_run / "wandb").glob(f"*/files/{name}")
        np.testing.assert_array_equal(pixels(path), pixels(whole_run / "images" / f"step-{iteration:08d}.png"))
    first, second = wandb_records(whole_run / "wandb")["run"]
    assert first.run_id == second.run_id and (first.display_name, first.project) == ("run", "tests")
    config = {item.key: json.loads(item.value_json) for item in first.config.update}
    assert (config["iters"], config["lr_form"], config["desc"]) == (6, "information", "run")
    assert [each.exit_code for each in wandb_records(whole_run / "wandb")["exit"]] == [0, 0]


def test_trackio_has_the_log_the_pictures_and_the_settings(whole_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackio")
    read = (
        "import json, trackio\nfrom trackio.sqlite_storage import SQLiteStorage as S\n"
        "(run,) = trackio.Api().runs('tests')\n"
        "print(json.dumps([run.name, run.config['iters'], S.get_logs('tests', run.name, run_id=run.id)]))"
    )
    monkeypatch.setenv("TRACKIO_DIR", str(whole_run.parent / "trackio"))
    output = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True).stdout
    name, iterations, rows = json.loads(output)
    assert (name, iterations) == ("run", 6)
    found = numbers_in(rows, "step")
    assert dict(found) == pytest.approx(logged_numbers(whole_run)) and len(dict(found)) == len(found)
    pictures = {row["step"]: row["pictures"]["file_path"] for row in rows if "pictures" in row}
    assert list(pictures) == [3, 6]
    for iteration, path in pictures.items():
        shown = pixels(whole_run.parent / "trackio" / "media" / path)
        np.testing.assert_array_equal(shown, pixels(whole_run / "images" / f"step-{iteration:08d}.png"))


def test_nothing_but_the_log_without_trackers(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    places = {"data_root": str(images), "save_dir": str(tmp_path), "desc": "run"}
    assert train(tiny_settings(**places, track="none", iters=1, watch_examples=0), ALONE) == 0
    names = {"settings.json", "log.jsonl", "images", "checkpoints", ".lock", ".lock-holder"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == names
