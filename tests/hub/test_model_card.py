"""The model card: valid, every number the run's own, nothing said that nobody knows, and its lines of Python run."""

import itertools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from loopback_client import LARGE_UPLOAD_WARNING
from loopback_hub import LoopbackHub
from plain_vae import PlainConfig, PlainVAE
from short_runs import LAST, change_settings, checkpoint_of, copied, records_of, short_run, write_log
from small_config import SMALL

from vdvae_lr import VDVAE, VAEConfig
from vdvae_lr.datasets.catalogue import DATASETS
from vdvae_lr.hub.model_card import Provenance
from vdvae_lr.hub.vdvae.published import PUBLISHED
from vdvae_lr.hub.vdvae.tensors import write_published

NAME = "tester/model"
OF_A_RUN = ("## How it was made", "## What it scores", "figures/", "iteration", "α", "nats/dim")
UNSTATED = "their own terms are not stated"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return copied(trained, tmp_path)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    """A Hub that this process is logged in to."""
    with LoopbackHub() as hub, hub.client(tmp_path / "home", token=hub.token):
        yield hub


def card_of(source: Path, **options: Any) -> ModelCard:
    """The card as it is saved, read by the Hub's own reader."""
    folder = source.parent / f"saved-{source.name}"
    VDVAE.from_pretrained(source, **options).save_pretrained(folder)
    return ModelCard.load(folder / "README.md")


def in_memory(config: VAEConfig = SMALL, **facts: Any) -> ModelCard:
    """The card of a model that came from no file."""
    torch.manual_seed(0)
    model = VDVAE(config)
    model.provenance = Provenance(**facts)
    return model.generate_model_card()


def rows_after(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table after `heading`, its head first."""
    _, _, below = text.partition(heading)
    lines = itertools.dropwhile(lambda line: not line.startswith("|"), below.splitlines())
    table = itertools.takewhile(lambda line: line.startswith("|"), lines)
    head, _, *body = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]
    assert {len(row) for row in body} == {len(head)}
    return [head, *body]


def scores(text: str) -> dict[str, float]:
    """The numbers of the table of scores, by name and unit."""
    found = [(name, *value.split()) for name, value in rows_after(text, "## What it scores")[1:]]
    return {f"{name}, {unit}": float(number) for name, number, unit, *_ in found}


def settings_in(text: str) -> dict[str, str]:
    return {name.strip("`"): value.strip("`") for name, value in rows_after(text, "## How it was made")[1:]}


def test_the_hub_reads_it_and_finds_it_valid(run: Path, hub: LoopbackHub) -> None:
    card = card_of(run)
    card.validate()
    assert [request.path for request in hub.requests] == ["/api/validate-yaml"]
    assert (card.data.library_name, card.data.pipeline_tag) == ("vdvae_lr", "unconditional-image-generation")
    assert {"vdvae", "hierarchical-vae"} <= set(card.data.tags)


def test_the_hubs_leader_board_gets_the_bound_of_the_log(run: Path) -> None:
    card, record = card_of(run), records_of(run, "eval")[-1]
    (result,) = card.data.eval_results
    assert card.data.model_name == "run"
    assert (result.metric_type, result.dataset_type) == ("bits_per_dim", "folder")
    assert result.dataset_name == f"folder ({record['examples']} validation images)"
    assert result.metric_value == round(record["negative_elbo_bits_per_dim"], 4)


def test_every_score_is_the_logs(run: Path) -> None:
    record = records_of(run, "eval")[-1] | {"rate_nats_per_dim": 0.43217}  # of so short a run it is nearly zero
    write_log(run, [record])
    text = str(card_of(run))
    assert scores(text) == {
        "bound (−ELBO), nats/dim": round(record["negative_elbo_nats_per_dim"], 4),
        "bound (−ELBO), bits/dim": round(record["negative_elbo_bits_per_dim"], 4),
        "rate (KL), nats/dim": round(record["rate_nats_per_dim"], 4),
        "distortion, nats/dim": round(record["distortion_nats_per_dim"], 4),
    }
    assert f"± {record['negative_elbo_standard_error_nats_per_dim']:.4f} (standard error over images)" in text
    assert f"{record['examples']} validation images, each once, at iteration {LAST}" in text


def test_the_rates_by_resolution_are_all_groups_and_sum_to_the_rate(run: Path) -> None:
    record = records_of(run, "eval")[-1]
    record["group_rates_nats_per_dim"] = [0.7, 0.00009, 0.3]
    record["rate_nats_per_dim"] = math.fsum(record["group_rates_nats_per_dim"])
    write_log(run, [record])
    assert rows_after(str(card_of(run)), "by resolution")[1:] == [
        ["1×1", "1", "0.70000", "70.0", "0.70000", "0"],
        ["4×4", "1", "0.00009", "0.0", "0.00009", "1"],
        ["8×8", "1", "0.30000", "30.0", "0.30000", "0"],
    ]


def test_the_rates_of_a_real_run_sum_to_its_rate(run: Path) -> None:
    record = records_of(run, "eval")[-1]
    head, *rows = rows_after(str(card_of(run)), "by resolution")
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    rate = math.fsum(map(float, columns["KL, nats/dim"]))
    assert rate == pytest.approx(record["rate_nats_per_dim"], abs=2e-5)
    assert sum(map(int, columns["latent groups"])) == len(record["group_rates_nats_per_dim"])


def test_the_settings_are_the_runs(run: Path) -> None:
    change_settings(run, hps="mine|yours", lr=0.125, seed=11, skip_threshold=380.0)
    found = settings_in(str(card_of(run)))
    wanted = {"hps": "mine\\|yours", "lr": "0.125", "seed": "11", "skip_threshold": "380.0", "alpha_T": "0.5"}
    wanted |= {"dataset": "folder", "global_batch": "4", "lr_form": "nll", "iters": str(LAST)}
    wanted |= {"started from": "random weights"}
    assert {name: found[name] for name in wanted} == wanted


def test_objective_and_place_are_said_in_words(run: Path) -> None:
    change_settings(run, iters=12_000, alpha_T=0.75, alpha_warmup_iters=12, lr_latents="prior", lr_image="mean")
    text = str(card_of(run))
    assert "fine-tuned" not in text  # it began from nothing
    assert "trained with Latent Reconstruction over every latent group, on folder" in text
    assert "averaged over training (EMA)" in text
    assert f"Iteration {LAST} of 12,000. α rose linearly from 0 towards 0.375 (α_T 0.75 over 12 iterations)" in text
    assert "form `nll`, target `constant`, mean image, prior latents, reduced by sum" in text


def test_the_end_of_alpha_and_the_reading_are_said_in_words(run: Path) -> None:
    change_settings(run, iters=12_000, alpha_T=0.75, alpha_end=0.25, alpha_end_iters=11_988, lr_reading=4)
    text = str(card_of(run))
    assert "towards 0.375 (α_T 0.75 over 12 iterations), to go to 0.25 over the last 11,988; form" in text
    assert "reduced by sum, reading 4." in text


def test_a_plain_run_says_that_there_was_no_latent_reconstruction(run: Path) -> None:
    change_settings(run, alpha_T=0.0)
    text = str(card_of(run))
    assert "trained without Latent Reconstruction" in text
    assert "No Latent Reconstruction (α_T 0)" in text
    assert "α rose" not in text and "fine-tuned" not in text


def test_a_saved_folder_has_the_runs_picture_where_the_card_says(run: Path, tmp_path: Path) -> None:
    VDVAE.from_pretrained(run).save_pretrained(tmp_path / "saved")
    (shown,) = re.findall(r"!\[.*?\]\((.*?)\)", (tmp_path / "saved" / "README.md").read_text())
    picture = run / "images" / f"step-{LAST:08d}.png"
    assert (tmp_path / "saved" / shown).read_bytes() == picture.read_bytes()


def test_a_run_without_evaluation_claims_no_score(run: Path) -> None:
    write_log(run, records_of(run, "train"))
    for path in (run / "images").iterdir():
        path.unlink()
    card = card_of(run)
    assert card.data.eval_results is None
    assert "## What it scores" not in str(card) and "figures/" not in str(card)
    assert f"Iteration {LAST} of {LAST}" in str(card)


def test_a_bound_that_is_no_number_is_said_to_be_none(run: Path) -> None:
    record = records_of(run, "eval")[-1]
    lost = {name: None for name, value in record.items() if isinstance(value, float)}
    write_log(run, [records_of(run, "eval")[0], record | lost])
    card = card_of(run)
    assert card.data.eval_results is None
    assert f"the bound at iteration {LAST}, over {record['examples']} validation images, is not finite" in str(card)
    assert "None" not in str(card) and "nan" not in str(card)


def test_a_single_image_has_no_standard_error(run: Path) -> None:
    record = records_of(run, "eval")[-1] | {"negative_elbo_standard_error_nats_per_dim": None, "examples": 1}
    write_log(run, [record])
    text = str(card_of(run))
    assert scores(text)["bound (−ELBO), nats/dim"] == round(record["negative_elbo_nats_per_dim"], 4)
    assert "±" not in text


@pytest.mark.parametrize("source", ["run", "file"])
def test_weights_before_averaging_do_not_borrow_the_averages_scores(run: Path, source: str) -> None:
    """The run measured and drew with its averaged weights."""
    raw = card_of(run, ema=False) if source == "run" else card_of(checkpoint_of(run) / "model.safetensors")
    assert raw.data.eval_results is None
    assert "## What it scores" not in str(raw) and "figures/" not in str(raw)
    assert "averaged over training" not in str(raw)
    assert f"Iteration {LAST} of {LAST}" in str(raw)


def test_nothing_is_said_of_a_model_that_nothing_is_known_of(tmp_path: Path) -> None:
    card = in_memory()
    assert [words for words in OF_A_RUN if words in str(card)] == []
    assert (card.data.eval_results, card.data.license) == (None, None)
    assert "whoever published this card states no licence" in str(card)
    assert "Data:" not in str(card) and "averaged" not in str(card) and "OpenAI" not in str(card)


def test_the_title_is_the_best_known_name(run: Path) -> None:
    torch.manual_seed(0)
    model = VDVAE(SMALL)
    cards = [
        card_of(run),
        in_memory(published="ffhq256"),
        model.generate_model_card(repository="somebody/mine"),
        model.generate_model_card(),
    ]
    titles = [re.findall("^# (.*)", str(card), re.MULTILINE)[0] for card in cards]
    assert titles == ["run", "ffhq256", "mine", "VDVAE"]


def test_the_model_is_described() -> None:
    rows = dict(rows_after(str(in_memory()), "## The model")[1:])
    parameters = sum(parameter.numel() for parameter in VDVAE(SMALL).parameters())
    assert rows["parameters"] == f"{parameters:,}"
    assert rows["images"] == "8×8, colour, 8 bits"
    assert rows["latent groups"] == "5, each of 3 channels"
    assert rows["encoder"] == f"`{SMALL.enc_blocks}`" and rows["decoder"] == f"`{SMALL.dec_blocks}`"
    assert rows["likelihood"] == "`normalised`, 3 mixture components"
    assert rows["input map"].startswith("(level -127.5) × 0.015625")


def test_the_published_5_bit_likelihood_comes_with_a_caution(trained: Path, tmp_path: Path) -> None:
    run = short_run(tmp_path, bits=5, likelihood="published_5bit")
    caution = "compare this bound only with others of the same likelihood"
    assert caution in str(card_of(run))
    assert caution not in str(card_of(copied(trained, tmp_path / "usual")))


def test_a_licence_is_stated_where_the_hub_and_where_people_look() -> None:
    card = in_memory(licence="cc-by-nc-sa-4.0")
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert "Weights: cc-by-nc-sa-4.0." in str(card)
    assert "Code: MIT." in str(card)


@pytest.mark.parametrize("dataset", sorted(DATASETS.keys() - {"folder", "hub"}))
def test_every_data_set_has_its_terms(dataset: str) -> None:
    terms = str(in_memory(dataset=dataset)).partition("## Terms")[2]
    assert re.search(r"^- Data: .*(licence|terms|agreement|CC BY-(NC-)?SA|MIT)", terms, re.MULTILINE)
    if dataset.startswith("ffhq"):
        assert "CC BY-NC-SA 4.0" in terms and "non-commercial" in terms


def test_published_weights_say_whose_they_are() -> None:
    terms = str(in_memory(published="ffhq256", dataset="ffhq256")).partition("## Terms")[2]
    assert "OpenAI's published `ffhq256` weights" in terms and UNSTATED in terms


STARTS: dict[str, Callable[[Path], dict[str, str]]] = {
    "name": lambda folder: {"pretrained": "imagenet64"},
    "restored by name": lambda folder: {"pretrained": "none", "restore_path": "imagenet64"},
    "averages restored": lambda folder: {"pretrained": "fashion", "restore_ema_path": "imagenet64"},
    "file": lambda folder: {"restore_path": str(folder / PUBLISHED["imagenet64"].file_name("model"))},
}


@pytest.mark.parametrize("start", STARTS)
def test_a_run_from_published_weights_says_so(run: Path, start: str) -> None:
    changes = STARTS[start](run)
    change_settings(run, **changes)
    text = str(card_of(run))
    assert "fine-tuned with Latent Reconstruction" in text
    assert "fine-tuned from OpenAI's published `imagenet64` weights" in text and UNSTATED in text
    named = changes.get("restore_path") or changes.get("restore_ema_path") or changes["pretrained"]
    assert settings_in(text)["started from"] == Path(named).name
    assert str(run.parent) not in text  # nobody else's business


def test_another_start_is_named_without_terms(run: Path) -> None:
    change_settings(run, pretrained="runs/before")
    text = str(card_of(run))
    assert "OpenAI" not in text and "fine-tuned with Latent Reconstruction" in text
    assert settings_in(text)["started from"] == "runs/before"


def test_a_file_of_a_run_that_is_exported_is_described_without_the_run(run: Path, tmp_path: Path) -> None:
    model = VDVAE.from_pretrained(run)
    (tmp_path / "elsewhere").mkdir()
    write_published(model, model.state_dict(), tmp_path / "elsewhere" / "weights.th")
    text = str(card_of(tmp_path / "elsewhere" / "weights.th", config=model.config))
    assert [words for words in OF_A_RUN if words in text] == []


def test_the_card_of_another_class_says_how_to_load_that_class() -> None:
    card = PlainVAE(PlainConfig()).generate_model_card()
    assert 'model = PlainVAE.from_pretrained("OWNER/NAME")' in str(card)
    assert "A PlainVAE. Written by" in str(card) and "# PlainVAE\n" in str(card)
    assert "VDVAE" not in str(card) and "vdvae" not in card.data.tags


@pytest.mark.filterwarnings(LARGE_UPLOAD_WARNING)
@pytest.mark.parametrize("config", [SMALL, VAEConfig(**vars(SMALL) | {"image_channels": 1})], ids=["colour", "grey"])
def test_the_lines_on_loading_run(hub: LoopbackHub, config: VAEConfig) -> None:
    torch.manual_seed(0)
    VDVAE(config).push_to_hub(NAME)
    text = hub.files(NAME)["README.md"].decode()
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(lines, names)
    assert type(names["model"]) is VDVAE and not names["model"].training
    image = names["image"]
    assert image.shape == (4, config.image_channels, 8, 8)
    assert -1 <= image.min() < image.max() <= 1
    assert f"`python train.py --pretrained {NAME}`" in text
