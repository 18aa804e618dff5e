"""`vdvae-lr reconstruct`, `interpolate`, `traverse` and `swap`: pixels against the Python calls, and bad input."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from picture_commands import done, pixels_of, save_images, save_model, tiles_of
from PIL import Image
from small_config import SMALL

import vdvae_lr
from vdvae_lr.cli.main import main
from vdvae_lr.errors import EXIT_INPUT_ERROR
from vdvae_lr.hub.pretrained import VDVAE


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VDVAE:
    """The model saved as `model` in the test's working folder."""
    monkeypatch.chdir(tmp_path)
    return save_model(tmp_path / "model")


@pytest.fixture
def pictures(model: VDVAE) -> np.ndarray:
    """The pixels of own/0.png, own/1.png and own/2.png."""
    return save_images(Path("own"), 3)


def test_reconstruct_shows_the_images_beside_their_first_groups(model: VDVAE, pictures: np.ndarray) -> None:
    done("reconstruct", "model", "own", "--batch", 2, "--seed", 4)
    grid = pixels_of(Path("reconstruct.png"))
    assert grid.shape[1] > 4 * 66  # image, 1 group, 3 groups, all 5
    done("reconstruct", "model", "own", "--first_groups", "0,2,5", "--out", "b.png", "--batch", 2)
    found = tiles_of(Path("b.png"), 3, 4)
    np.testing.assert_array_equal(found[:, 0], pictures)
    for column, count in ((1, 0), (2, 2), (3, 5)):
        expected = vdvae_lr.reconstruct(model, pictures, first_groups=count, batch=2)
        np.testing.assert_array_equal(found[:, column], expected)


def test_reconstruct_leaves_single_files_named_for_their_source(model: VDVAE, pictures: np.ndarray) -> None:
    words = ["--first_groups", "4x4,all", "--files", "out", "--latents", "sample", "--seed", 2, "--temperature", "0"]
    done("reconstruct", "model", "own/2.png", "own/0.png", *words)
    names = ["000000-2-first-3", "000001-2-first-5", "000002-0-first-3", "000003-0-first-5"]
    paths = [Path(f"out/reconstruct-{name}.png") for name in names]
    assert sorted(Path("out").iterdir()) == paths
    for count, files in ((3, paths[::2]), (5, paths[1::2])):
        expected = vdvae_lr.reconstruct(
            model, pictures[[2, 0]], first_groups=count, latents="sample", seed=2, temperature=0
        )
        np.testing.assert_array_equal(np.stack([pixels_of(path) for path in files]), expected)


def test_grey_models_take_and_leave_grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(SMALL, image_channels=1, bits=5)
    model = save_model(tmp_path / "model", config)
    pictures = save_images(Path("own"), 1, config)
    done("reconstruct", "model", "own/0.png", "--exact", "--first_groups", "all", "--files", "out", "--out", "b.png")
    (expected,) = vdvae_lr.reconstruct(model, pictures)
    np.testing.assert_array_equal(pixels_of(Path("out/reconstruct-000000-0-first-5.png")), expected[..., 0])
    found = tiles_of(Path("b.png"), 1, 2)
    np.testing.assert_array_equal(found[0, 1], np.broadcast_to(expected, (8, 8, 3)))


def test_what_is_done_to_an_image_is_said(model: VDVAE, capsys: pytest.CaptureFixture[str]) -> None:
    Path("own").mkdir()
    for number in range(7):
        Image.new("L", (20, 10), number).save(f"own/{number}.png")
    done("reconstruct", "model", "own")
    out = capsys.readouterr().out
    change = "cut from 20x10 to its central square, reduced to 8x8 and turned from grey to colour"
    assert f"own/0.png: {change}\n" in out
    assert out.count(change) == 5 and "… and likewise 2 more of 7 files\n" in out
    assert main(["reconstruct", "model", "own", "--exact", "--out", "b.png"]) == EXIT_INPUT_ERROR
    assert "own/0.png is not what the model takes, 8x8 colour" in capsys.readouterr().err


def test_interpolate_has_a_row_for_each_choice_of_groups(model: VDVAE, pictures: np.ndarray) -> None:
    done("interpolate", "model", "own/0.png", "own/1.png", "--steps", 4, "--groups", "all", "0:2", "8x8")
    found = tiles_of(Path("interpolate.png"), 3, 6)
    own = vdvae_lr.reconstruct(model, pictures[:2])
    for row, groups in zip(found, ("all", "0:2", "8x8"), strict=True):
        np.testing.assert_array_equal(row[[0, -1]], pictures[:2])
        np.testing.assert_array_equal(row[1], own[0])
        np.testing.assert_array_equal(
            row[1:-1], vdvae_lr.interpolate(model, pictures[0], pictures[1], steps=4, groups=groups)
        )
    np.testing.assert_array_equal(found[0, -2], own[1])


def test_interpolate_passes_its_settings_on(model: VDVAE, pictures: np.ndarray) -> None:
    words = ["--path", "linear", "--coordinates", "latents", "--latents", "sample", "--seed", 9, "--files", "out"]
    done("interpolate", "model", "own/2.png", "own/1.png", "--steps", 3, *words)
    expected = vdvae_lr.interpolate(
        model, pictures[2], pictures[1], steps=3, path="linear", coordinates="latents", latents="sample", seed=9
    )
    found = [pixels_of(Path(f"out/interpolate-{number:06}.png")) for number in range(3)]
    np.testing.assert_array_equal(np.stack(found), expected)


def test_traverse_has_a_row_for_each_channel(model: VDVAE, pictures: np.ndarray) -> None:
    done("traverse", "model", "--group", 3, "--image", "own/1.png", "--steps", 3, "--reach", 2)
    found = tiles_of(Path("traverse.png"), 3, 3)
    expected = vdvae_lr.traverse(model, pictures[1], group=3, moves=(-2, 0, 2))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[0, 1], vdvae_lr.reconstruct(model, pictures[1])[0])


def test_traverse_passes_its_settings_on(model: VDVAE) -> None:
    words = ["--channels", "2,0", "--position", "1,3", "--unit", "raw", "--coordinates", "latents"]
    sampled = ["--temperature", "0.7", "--seed", 5, "--files", "out"]
    done("traverse", "model", "--group", 1, "--steps", 2, "--reach", 30, *words, *sampled)
    expected = vdvae_lr.traverse(
        model,
        group=1,
        moves=(-30, 30),
        channels=(2, 0),
        position=(1, 3),
        unit="raw",
        coordinates="latents",
        temperature=0.7,
        seed=5,
    )
    found = [pixels_of(path) for path in sorted(Path("out").iterdir())]
    np.testing.assert_array_equal(np.stack(found).reshape(expected.shape), expected)
    assert Path("out/traverse-000003-group-1-channel-0-move-+30.png").is_file()


def test_swap_of_two_images_over_the_number_of_coarse_groups(model: VDVAE, pictures: np.ndarray) -> None:
    done("swap", "model", "own/0.png", "own/1.png", "--first_groups", "0,2,all")
    found = tiles_of(Path("swap.png"), 2, 5)
    own = vdvae_lr.reconstruct(model, pictures[:2])
    pairs = vdvae_lr.swap(model, pictures[:2], first_groups=2)
    for a in range(2):
        expected = [pictures[a], own[1 - a], pairs[a, 1 - a], own[a], pictures[1 - a]]
        np.testing.assert_array_equal(found[a], np.stack(expected))


def test_swap_of_all_pairs(model: VDVAE, pictures: np.ndarray) -> None:
    done("swap", "model", "own", "--coordinates", "latents", "--files", "out", "--out", "swap.png", "--batch", 2)
    found = tiles_of(Path("swap.png"), 4, 4)
    pairs = vdvae_lr.swap(model, pictures, first_groups=3, coordinates="latents", batch=2)
    assert (found[0, 0] == 255).all()
    np.testing.assert_array_equal(found[0, 1:], pictures)
    np.testing.assert_array_equal(found[1:, 0], pictures)
    np.testing.assert_array_equal(found[1:, 1:], pairs)
    single = pixels_of(Path("out/swap-000005-first-3-of-image-1-others-of-2.png"))
    np.testing.assert_array_equal(single, pairs[1, 2])


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("reconstruct model absent.png", "absent.png does not exist; name an image file, or a folder of images."),
        ("reconstruct model", "there are no images; name image files, or folders of them."),
        ("reconstruct model own/0.png model/config.json", "model/config.json cannot be read as an image"),
        ("reconstruct model own --first_groups 6", "the first 6 groups cannot be had: the model has groups 0 to 4"),
        ("reconstruct model own --temperature cold", "temperature 'cold' is no number"),
        ("reconstruct absent own", "absent"),
        ("interpolate model own/0.png own", "4 images were found where two are wanted"),
        (
            "interpolate model own/0.png own/1.png --steps 1",
            "steps is 1; it must be 2 or more, because both ends count",
        ),
        ("interpolate model own/0.png own/1.png --groups 0:9", "latent groups '0:9' go beyond the last one"),
        ("interpolate model own/0.png own/1.png --groups", "groups has no value"),
        ("interpolate model own/0.png own/1.png --coordinates latents", "an arc needs coordinates"),
        ("traverse model --group 5", "there is no latent group 5: the model has groups 0 to 4"),
        ("traverse model --group 0 --channels 3", "latent group 0 has channels 0 to 2"),
        ("traverse model --group 0 --channels a", "channels is 'a'; write all, or channels counted from 0"),
        ("traverse model --group 1 --position 1", "position is '1'; write all, or position counted from 0"),
        ("traverse model --group 1 --position 4,0", "latent group 1 is 4x4, with rows and columns 0 to 3"),
        ("traverse model --group 1 --reach 0", "reach is 0.0; it must be positive"),
        ("traverse model --group 1 --steps 1", "steps is 1; it must be 2 or more"),
        ("traverse model --group 1 --image own", "3 images were found where one is wanted"),
        ("swap model own/0.png", "there is one image to swap latents with"),
        ("swap model own --first_groups 1,2", "one number of coarse groups, not for 2"),
        ("swap model own --first_groups 7", "the first 7 groups cannot be had"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    model: VDVAE, pictures: np.ndarray, capsys: pytest.CaptureFixture[str], words: str, cause: str
) -> None:
    assert main([*words.split(), "--out", "grid.png", "--files", "out"]) == EXIT_INPUT_ERROR
    captured = capsys.readouterr().err
    assert captured.startswith("error: ") and captured.count("\n") == 1
    assert cause in captured
    assert sorted(path.name for path in Path().iterdir()) == ["model", "own"]
