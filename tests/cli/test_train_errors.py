"""What a person can get wrong with `train`: one line that names it, exit code 2, and nothing written."""

import json
from pathlib import Path

import pytest
from reference_cases import PUBLISHED_MODELS

from vdvae_lr.cli.train import main
from vdvae_lr.errors import EXIT_INPUT_ERROR
from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.files.presets import read_presets

PRESETS = sorted(path.stem for path in bundled_folder("hps").glob("*.toml"))


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no launcher."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


FASHION = "--hps fashion --pretrained none --device cpu"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--hps cifar_10", ["'cifar_10'", "did you mean 'cifar10'"]),
        (f"{FASHION} --n_batch 5", ["global_batch 16", "n_batch 5", "--n_batch"]),
        (f"{FASHION} --n_batch 5 --dry_run", ["global_batch 16", "n_batch 5", "--n_batch"]),
        (f"{FASHION} --image_size 30", ["enc_blocks", "resolution 32", "image_size is 30"]),
        (f"{FASHION} --enc_blocks 32x2,32z2", ["enc_blocks", "'32z2'"]),
        (f"{FASHION} --dec_blocks 1x2,4m2", ["dec_blocks", "'4m2'"]),
        (f"{FASHION} --custom_width_str 16=64", ["custom_width_str", "'16=64'"]),
        (f"{FASHION} --dataset fashon", ["'fashon'", "did you mean 'fashion'"]),
        (f"{FASHION} --dataset cifar10", ["image_channels is 1", "cifar10"]),
        (f"{FASHION} --dataset folder", ["folder", "--data_root"]),
        (f"{FASHION} --data_root nowhere", ["nowhere"]),
        (f"{FASHION} --hps fashion_pretrain --data_root nowhere", ["nowhere"]),
        ("--hps fashion --pretrained fashon --device cpu", ["'fashon'"]),
        ("--hps fashion --pretrained absent.th --device cpu", ["absent.th", "does not exist"]),
        ("--hps fashion --restore_path absent.th --device cpu", ["absent.th", "does not exist"]),
        (f"{FASHION} --lr -1", ["lr is -1.0"]),
        (f"{FASHION} --dataset fashon --dry_run", ["'fashon'", "did you mean 'fashion'"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    workplace: Path, capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    assert main(line.split()) == EXIT_INPUT_ERROR
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and len(captured.err.splitlines()) == 1
    assert [word for word in words if word not in captured.err] == []
    assert list(workplace.iterdir()) == []


def test_missing_published_weights_say_how_to_get_them(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--pretrained", "ffhq256", "--device", "cpu"]) == EXIT_INPUT_ERROR
    error = capsys.readouterr().err
    assert "ffhq256-iter-1700000-model-ema.th is not on this machine and HF_HUB_OFFLINE forbids the network" in error
    assert "--weights_mirror" in error and error.count("\n") == 1
    assert error.endswith(": vdvae-lr pull ffhq256\n")
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("name", ["cifar10", "imagenet32", "imagenet64", "ffhq256", "ffhq1024"])
def test_missing_data_name_the_folder(workplace: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(f"--hps {name} --pretrained none --data_root nowhere --device cpu".split()) == EXIT_INPUT_ERROR
    error = capsys.readouterr().err
    assert "nowhere" in error and "prepare.py" in error and len(error.splitlines()) == 1
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("save_dir", ["taken", "taken/below"])
def test_save_dir_that_cannot_be_made(workplace: Path, capsys: pytest.CaptureFixture[str], save_dir: str) -> None:
    """A file stands where the folder should: no user, root included, can write below it."""
    (workplace / "taken").write_text("mine")
    assert main([*FASHION.split(), "--save_dir", save_dir]) == EXIT_INPUT_ERROR
    error = capsys.readouterr().err
    assert save_dir in error and "--save_dir" in error and len(error.splitlines()) == 1
    assert [path.name for path in workplace.iterdir()] == ["taken"]
    assert (workplace / "taken").read_text() == "mine"


def test_folder_of_something_else_is_left_alone(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letter = workplace / "runs" / "fashion" / "letter.txt"
    letter.parent.mkdir(parents=True)
    letter.write_text("mine")
    assert main(FASHION.split()) == EXIT_INPUT_ERROR
    assert "not a run" in capsys.readouterr().err
    assert [path for path in workplace.rglob("*") if path.is_file()] == [letter]


def test_run_of_other_settings_is_left_alone(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = workplace / "runs" / "fashion" / "settings.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps(read_presets("fashion")))
    saved = record.parent / "checkpoints" / "step-00000200" / "state.json"
    saved.parent.mkdir(parents=True)
    saved.write_text("{}")
    assert main([*FASHION.split(), "--lr", "0.5"]) == EXIT_INPUT_ERROR
    error = capsys.readouterr().err
    assert "lr: 0.00015 → 0.5" in error and "--desc" in error and "--fresh" in error
    assert [path for path in workplace.rglob("*") if path.is_file()] == [record, saved]
    assert json.loads(record.read_text()) == read_presets("fashion")


@pytest.mark.parametrize("name", [*PRESETS, "ffhq256,paper"])
def test_dry_run_needs_neither_data_nor_weights(workplace: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(f"--hps {name} --dry_run --data_root nowhere --weights_mirror nowhere".split()) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert list(workplace.iterdir()) == []
    base = name.removesuffix(",paper")
    if base in PUBLISHED_MODELS:
        record = PUBLISHED_MODELS[base]
        assert f"Model: {record['parameters']:,} parameters" in output
        latents = [shape for key, shape in record["shapes"].items() if key.endswith("z_proj.weight")]
        assert f"{len(latents)} latent groups" in output
    iterations = read_presets(name).get("iters", 1000)
    assert f"Schedule: {iterations:,} iterations" in output


def test_dry_run_says_where_alpha_goes_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    words = "--hps fashion --dry_run --iters 500 --alpha_T 0.5 --alpha_end 0.1 --alpha_end_iters 200"
    assert main(words.split()) == 0
    assert "α 0 → 0.5 over 300 iterations, then to 0.1 over the last 200;" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ("", "none"),
        ("--restore_path a.th", "a.th"),
        ("--restore_ema_path b.th", "b.th"),
        ("--restore_path a.th --restore_ema_path b.th", "a.th"),
    ],
)
def test_the_schedule_names_the_weights_to_start_from(
    capsys: pytest.CaptureFixture[str], words: str, start: str
) -> None:
    assert main([*FASHION.split(), *words.split(), "--dry_run"]) == 0
    assert f"start from {start}." in " ".join(capsys.readouterr().out.split())
