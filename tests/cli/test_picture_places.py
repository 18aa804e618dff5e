"""Where the picture commands write: places that clash, earlier sets, and what is refused before any work."""

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from picture_commands import done, save_images, save_model
from PIL import Image

from vdvae_lr.cli import interpolate as interpolate_command
from vdvae_lr.cli import swap as swap_command
from vdvae_lr.cli import traverse as traverse_command
from vdvae_lr.cli.main import main
from vdvae_lr.cli.shared import picture_output
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.hub.pretrained import VDVAE, PretrainedModel

NAMED = [
    "reconstruct model own --first_groups 1,3",
    "interpolate model own/0.png own/1.png --steps 3 --groups all 0:2,4",
    "traverse model --group 1 --steps 3 --reach 0.00001",
    "swap model own --first_groups 2",
]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VDVAE:
    """The model saved as `model` in the test's working folder, beside own/0.png to own/2.png."""
    monkeypatch.chdir(tmp_path)
    save_images(Path("own"), 3)
    return save_model(tmp_path / "model")


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == EXIT_INPUT_ERROR
    captured = capsys.readouterr().err
    assert captured.startswith("error: ") and captured.count("\n") == 1
    return captured


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize("grid", ["out/sample-000000.png", "model/../out/sample-000001.png"])
def test_a_grid_does_not_take_a_single_pictures_name(
    model: VDVAE, capsys: pytest.CaptureFixture[str], grid: str
) -> None:
    cause = "has the name of a single picture in out, and one would replace the other; name another file with --out."
    assert cause in refusal(capsys, "sample", "model", "--count", 2, "--files", "out", "--out", grid, "--overwrite")
    assert not Path("out").exists()
    done("sample", "model", "--count", 2, "--files", "out", "--out", "out/sample.png")
    assert sorted(contents("out")) == ["sample-000000.png", "sample-000001.png", "sample.png"]


def test_an_earlier_set_stays_until_the_new_one_is_whole(
    model: VDVAE, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done("sample", "model", "--count", 4, "--files", "out")
    before, save = contents("out"), picture_output.save_png

    def fail_second(image: Image.Image, path: Path) -> None:
        if path.name == "sample-000001.png":
            raise InputError("the disk is full.")
        save(image, path)

    words = ["sample", "model", "--count", 3, "--files", "out", "--overwrite", "--seed", 1]
    with monkeypatch.context() as patch:
        patch.setattr(picture_output, "save_png", fail_second)
        assert "the disk is full" in refusal(capsys, *words)
    after = contents("out")
    changed = [name for name in before if after[name] != before[name]]
    assert sorted(after) == sorted(before) and "sample-000000.png" in changed
    assert not {"sample-000001.png", "sample-000003.png"} & {*changed}
    done(*words)
    assert sorted(contents("out")) == [f"sample-{number:06}.png" for number in range(3)]


@pytest.mark.parametrize("words", NAMED, ids=lambda words: words.split()[0])
def test_a_named_set_is_known_again_and_replaced_as_a_whole(
    model: VDVAE, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    done(*words.split(), "--files", "out")
    names = sorted(contents("out"))
    command = words.split()[0]
    theirs = f"{command}-000009-group-0-first-1-of-image-0-others-of-1-at-mine.png"
    for path in (f"out/{command}-000099{names[0][len(command) + 7 :]}", f"out/{theirs}"):
        Path(path).write_bytes(b"mine")
    assert f"holds {len(names) + 1} pictures of an earlier call" in refusal(capsys, *words.split(), "--files", "out")
    done(*words.split(), "--files", "out", "--overwrite", "--seed", 1)
    assert sorted(contents("out")) == sorted([*names, theirs])


def test_a_persons_own_file_is_none_of_an_earlier_set(model: VDVAE) -> None:
    Path("out").mkdir()
    for name in ("sample-202401-mine.png", "sample-mine.png", "sample-1.png"):
        Path("out", name).write_bytes(b"mine")
    done("sample", "model", "--count", 1, "--files", "out")
    done("sample", "model", "--count", 1, "--files", "out", "--overwrite")
    assert [name for name, content in contents("out").items() if content != b"mine"] == ["sample-000000.png"]
    assert len(contents("out")) == 4


def test_rows_of_an_interpolation_are_told_apart(model: VDVAE) -> None:
    done("interpolate", "model", "own/0.png", "own/1.png", "--steps", 2, "--groups", "0:2,4", "8x8", "--files", "out")
    assert sorted(contents("out")) == [
        "interpolate-000000-groups-0to2+4-at-0.png",
        "interpolate-000001-groups-0to2+4-at-1.png",
        "interpolate-000002-groups-8x8-at-0.png",
        "interpolate-000003-groups-8x8-at-1.png",
    ]


@pytest.mark.parametrize("option", ["--out", "--files"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    model: VDVAE, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(PretrainedModel, "from_pretrained", lambda *_, **__: pytest.fail("too late"))
    place = {"--out": "own/0.png/new/a.png", "--files": "own/0.png/new"}[option]
    assert f"{place} cannot be written (own/0.png is no folder)" in refusal(capsys, "sample", "model", option, place)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK and access(path, mode))
    place = {"--out": "own/new/a.png", "--files": "own/new"}[option]
    assert f"{place} cannot be written (no permission for own)" in refusal(capsys, "sample", "model", option, place)


def test_a_folder_is_no_grid(model: VDVAE, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.png").mkdir()
    assert "a.png is a folder; name a file" in refusal(capsys, "sample", "model", "--out", "a.png", "--overwrite")


def test_a_tilde_is_the_home_folder(model: VDVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("home").mkdir()
    monkeypatch.setenv("HOME", str(Path("home").resolve()))
    done("sample", "model", "--count", 1, "--out", "~/a.png", "--files", "~/single")
    assert Path("home/a.png").is_file() and Path("home/single/sample-000000.png").is_file()
    assert not Path("~").exists()


def test_one_thing_is_not_several(model: VDVAE, capsys: pytest.CaptureFixture[str]) -> None:
    done("sample", "model", "--count", 1, "--files", "out")
    done("reconstruct", "model", "own/0.png", "--first_groups", 1, "--files", "out")
    done("traverse", "model", "--group", 0, "--channels", 1)
    out = capsys.readouterr().out
    for words in (
        "drawing 1 picture at",
        "wrote 1 single picture to",
        "reconstructing 1 image\n",
        "moving 1 channel\n",
    ):
        assert words in out
    assert "holds 1 picture of an earlier call" in refusal(capsys, "sample", "model", "--files", "out")


class Watched:
    """Counts the arrays it was shown that still exist when the next one is made."""

    def __init__(self) -> None:
        self._made: list[weakref.ref[np.ndarray]] = []
        self.most = 0

    def __call__(self, array: np.ndarray) -> np.ndarray:
        self.most = max(self.most, sum(one() is not None for one in self._made))
        self._made.append(weakref.ref(array))
        return array


@pytest.mark.parametrize(
    ("module", "function", "words"),
    [
        (traverse_command, "traverse", "traverse model --group 1"),
        (interpolate_command, "interpolate", "interpolate model own/0.png own/1.png --groups 0 1 2"),
        (swap_command, "swap_rows", "swap model own --first_groups 2"),
    ],
)
def test_rows_that_no_grid_wants_are_let_go(
    model: VDVAE, monkeypatch: pytest.MonkeyPatch, module: ModuleType, function: str, words: str
) -> None:
    make, watched = getattr(module, function), Watched()

    def each_row(*arguments: object, **options: object) -> Iterator[np.ndarray]:
        return (watched(row.copy()) for row in make(*arguments, **options))

    def one_row(*arguments: object, **options: object) -> np.ndarray:
        return watched(make(*arguments, **options))

    monkeypatch.setattr(module, function, each_row if function == "swap_rows" else one_row)
    done(*words.split(), "--files", "out")
    assert watched.most == 1  # the one that was just written
