"""`verify`: the bound on the given data, compared with the published number; the exit code is the verdict."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import launch
from small_published import NAME, publish, random_model
from training_runs import ALONE, write_images

from vdvae_lr import VDVAE
from vdvae_lr.cli import verify
from vdvae_lr.cli.main import main
from vdvae_lr.cli.verify import EXIT_DIFFERENT, Claim, claim_of
from vdvae_lr.datasets.array_files import IDX_SIDE, IDX_TEST, IDX_TRAIN, write_idx
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.loader import evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.bound import Bound, evaluate_bound
from vdvae_lr.hub.vdvae.published import PUBLISHED
from vdvae_lr.model.vdvae.vae import VeryDeepVAE as PlainVDVAE

EXAMPLES = 20
HELD_OUT = 5_000  # of Fashion-MNIST's training images
RESULT = re.compile(
    r"published (?P<claim>\S+) (?P<unit>\S+), measured (?P<value>\S+): (?P<difference>\S+) \((?P<share>\S+)%\)\n"
    r"(?P<verdict>\S+): rounding and 3 standard errors over images make (?P<chance>\S+) (?P=unit)\n"
)


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fashion-MNIST's files, with the first bundled test images for its test set and black ones to train on."""
    root = tmp_path_factory.mktemp("fashion")
    border = (32 - IDX_SIDE) // 2
    images = open_splits(DataSettings("fashion_small"), 32, 1).test.read(range(2 * EXAMPLES))
    (root / IDX_TEST).write_bytes(write_idx(images[:, border:-border, border:-border]))
    (root / IDX_TRAIN).write_bytes(write_idx(np.zeros((HELD_OUT + 1, IDX_SIDE, IDX_SIDE, 1), np.uint8)))
    return root


def words_for(root: Path) -> list[str]:
    return ["fashion", "--data_root", str(root), "--examples", str(EXAMPLES), "--batch", "8", "--device", "cpu"]


def measured_here(model: PlainVDVAE, data: DataSettings, examples: int) -> Bound:
    images = open_splits(data, model.config.image_size, model.config.image_channels).test
    batches = evaluation_batches(images, evaluation_shards(examples, 4, 0, 1), 0, False)
    return evaluate_bound(model, batches, seed=0, world=ALONE)


def result(output: str) -> dict[str, str]:
    found = RESULT.search(output)
    assert found is not None, output
    return found.groupdict()


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["verify", *words]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


def test_the_bundled_model_scores_what_its_report_says(fashion: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *words_for(fashion)]) == 0
    output = capsys.readouterr().out
    assert "fashion: 458 tensors, 1,164,919 parameters, each accounted for\n" in output
    assert f"measuring the bound on {EXAMPLES} of {2 * EXAMPLES} test images of fashion\n" in output
    found = result(output)
    bound = measured_here(VDVAE.from_pretrained("fashion"), DataSettings("fashion", str(fashion)), EXAMPLES)
    claim = claim_of("fashion").bound
    assert (found["claim"], found["unit"], found["verdict"]) == (f"{claim:g}", "nats/dim", "agrees")
    assert float(found["value"]) == pytest.approx(bound.negative_elbo, abs=1e-4)
    assert float(found["difference"]) == pytest.approx(bound.negative_elbo - claim, abs=1e-4)
    assert float(found["share"]) == pytest.approx(100 * (bound.negative_elbo / claim - 1), abs=0.01)
    assert float(found["chance"]) == pytest.approx(3 * bound.standard_error, rel=1e-3)


def test_two_processes_find_the_same_number(fashion: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", *words_for(fashion)])
    alone = result(capsys.readouterr().out)
    ended = launch("srun", tmp_path / "output", ["-m", "vdvae_lr", "verify", *words_for(fashion)])
    assert [one.code for one in ended] == [0, 0], "\n".join(one.errors for one in ended)
    first, second = (one.output for one in ended)
    assert result(first) == alone
    assert second == ""  # one process speaks


def test_another_bound_than_the_claimed_one_is_an_exit_code(
    fashion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verify, "claim_of", lambda name: Claim("fashion", 1.0, "nats/dim", 0.01))
    assert main(["verify", *words_for(fashion)]) == EXIT_DIFFERENT == 3
    found = result(capsys.readouterr().out)
    assert (found["claim"], found["verdict"]) == ("1", "DIFFERS")
    assert float(found["difference"]) == pytest.approx(float(found["value"]) - 1, abs=1e-4)
    assert float(found["share"]) == pytest.approx(100 * (float(found["value"]) - 1), abs=0.02)
    assert abs(float(found["difference"])) > float(found["chance"]) > 0.01 / 2


@pytest.mark.parametrize("unit", ["nats/dim", "bits/dim"])
@pytest.mark.parametrize(("error", "code"), [(0.0, 0), (0.9, 0), (-0.9, 0), (1.1, 3), (-1.1, 3)])
def test_a_published_model_is_held_to_its_number(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unit: str,
    error: float,
    code: int,
) -> None:
    """The claim is off by `error` times what rounding and chance allow, in the unit of its publication."""
    images, last_digit = write_images(tmp_path / "images", 80), 0.02
    bound = measured_here(random_model(0), DataSettings("folder", str(images)), 4)
    factor = 1.0 if unit == "nats/dim" else 1 / math.log(2)
    chance = last_digit / 2 + 3 * bound.standard_error * factor
    claim = bound.negative_elbo * factor - error * chance
    publish(monkeypatch, tmp_path / "mirror", bound=claim, unit=unit, last_digit=last_digit)
    words = [NAME, "--data_root", str(images), "--weights_mirror", str(tmp_path / "mirror"), "--device", "cpu"]
    assert main(["verify", *words, "--examples", "4"]) == code
    found = result(capsys.readouterr().out)
    assert (found["unit"], found["verdict"]) == (unit, "agrees" if code == 0 else "DIFFERS")
    assert float(found["value"]) == pytest.approx(bound.negative_elbo * factor, abs=1e-4)
    assert float(found["chance"]) == pytest.approx(chance, abs=1e-4)


def test_the_claims_are_the_published_numbers() -> None:
    """DESIGN §4, from the published README."""
    published = {name: (claim_of(name).bound, claim_of(name).unit) for name in PUBLISHED}
    cifar10 = dict(enumerate([2.879, 2.842, 2.898, 2.864]))
    assert published == {
        "ffhq256": (0.4232, "nats/dim"),
        "ffhq1024": (1.678, "nats/dim"),
        "imagenet32": (2.6364, "nats/dim"),
        "imagenet64": (2.44, "nats/dim"),
        **{f"cifar10-seed{seed}": (bits, "bits/dim") for seed, bits in cifar10.items()},
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_claim_is_known_to_its_last_digit(name: str) -> None:
    claim = claim_of(name)
    assert f"{claim.bound}".partition(".")[2] != ""
    assert claim.last_digit == pytest.approx(10 ** -len(f"{claim.bound}".partition(".")[2]))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fashon", "no number was published for 'fashon' (did you mean 'fashion'?)"),
        ("models/fashion", "no number was published for 'models/fashion'"),
        ("lrvdvae-ffhq256", "verify knows fashion, ffhq256"),
        ("lrvdvae-fashion", "no number was published for 'lrvdvae-fashion'"),  # it was measured on a part of the split
    ],
)
def test_a_name_without_a_published_number_is_refused(
    capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    assert words in answer(capsys, name)


def test_a_report_of_ones_own_is_no_publication(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `compare` leaves it, with two models."""
    (tmp_path / "comparison.json").write_text('{"rows": {"negative_elbo": {"models": {"a": {}, "b": {}}}}}')
    assert "no number was published" in answer(capsys, str(tmp_path))


def test_missing_data_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = answer(capsys, "fashion", "--data_root", str(tmp_path / "nowhere"), "--device", "cpu")
    assert str(tmp_path / "nowhere") in message and "data/fashion/prepare.py" in message


def test_missing_weights_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish(monkeypatch, tmp_path / "mirror")
    (tmp_path / "mirror" / published.file_name("model-ema")).unlink()
    message = answer(capsys, NAME, "--weights_mirror", str(tmp_path / "mirror"), "--device", "cpu")
    assert f"{published.file_name('model-ema')} does not exist" in message


def test_weights_of_another_model_are_not_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish(monkeypatch, tmp_path / "mirror")
    path = tmp_path / "mirror" / published.file_name("model-ema")
    torch.save({**torch.load(path), "decoder.extra": torch.zeros(1)}, path)
    message = answer(capsys, NAME, "--weights_mirror", str(tmp_path / "mirror"), "--device", "cpu")
    assert "'decoder.extra' is not part of this model" in message


@pytest.mark.parametrize(
    ("words", "said"), [(["--examples", "1"], "examples is 1"), (["--batch", "0"], "batch is 0; it must be 1 or more")]
)
def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert said in answer(capsys, "fashion", *words)


def test_a_folder_of_the_same_name_is_not_what_is_verified(
    fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fashion").mkdir()
    assert main(["verify", *words_for(fashion)]) == 0
    assert "1,164,919 parameters" in capsys.readouterr().out


def test_convolutions_are_float32(
    fashion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def stand_in(*arguments: object, **options: object) -> Bound:
        seen.append(torch.backends.cudnn.allow_tf32)
        raise InputError("enough")

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(verify, "evaluate_bound", stand_in)
    assert "enough" in answer(capsys, *words_for(fashion))
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32


def test_on_the_whole_split_chance_is_only_other_noise() -> None:
    claim = Claim("fashion", 2.0, "nats/dim", 0.01)
    measured = Bound(100, 1024, 2.1, 0.5, 1.1, 1.0, (1.1,))
    assert claim.difference(measured, whole=True)[2] == pytest.approx(0.005 + 0.002)
    assert claim.difference(measured, whole=False)[2] == pytest.approx(0.005 + 1.5)
