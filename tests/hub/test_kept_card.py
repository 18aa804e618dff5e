"""The card that came with weights is saved with them again, as it is: the bundled model's keeps its licence."""

import dataclasses
import gc
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from loopback_client import LARGE_UPLOAD_WARNING
from loopback_hub import LoopbackHub
from refusals import refused
from small_config import SMALL

from vdvae_lr import VDVAE
from vdvae_lr.cli.main import main
from vdvae_lr.files.bundled import bundled_folder

pytestmark = [
    pytest.mark.filterwarnings(LARGE_UPLOAD_WARNING),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"),
]
NAME = "tester/model"
BUNDLED = bundled_folder("models/fashion") / "README.md"
CARDS = {
    "rule": b"---\nmy notes\n---\ntext\n",
    "not UTF-8": b"---\nlicense: mit\n---\n\xe9\n",
    "not YAML": b"---\na: [\n---\n",
    "no results": b"---\nmodel-index:\n- a\n---\n",
    "byte-order mark": b"\xef\xbb\xbf---\nlicense: mit\n---\n- Weights: MIT.\n",
    "other line ends": b"---\r\nlicense: mit\r\n---\r\n- Weights: MIT.\r\n",
    "order": b"---\ntags:\n- b\n- a\nlicense: mit\n---\n- Weights: MIT.\n",
}
BROKEN = ("rule", "not UTF-8", "not YAML", "no results")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    """A Hub that this process is logged in to."""
    with LoopbackHub() as hub, hub.client(tmp_path / "home", token=hub.token):
        yield hub
    gc.collect()  # huggingface_hub leaves the folder of a failed upload to the garbage collector, which warns


def test_the_bundled_models_card_keeps_its_licence_and_its_numbers(tmp_path: Path) -> None:
    """However often it is saved and loaded, it is the bundled one to the byte."""
    name: str | Path = "fashion"
    for folder in (tmp_path / "first", tmp_path / "second"):
        VDVAE.from_pretrained(name).save_pretrained(folder)
        card = ModelCard.load(folder / "README.md")
        (result,) = card.data.eval_results
        assert (card.data.license, result.metric_type, result.metric_value) == ("mit", "bits_per_dim", 2.358)
        assert "1.6345" in card.text and "Weights: MIT" in card.text
        assert (folder / "README.md").read_bytes() == BUNDLED.read_bytes()
        name = folder


def test_exported_and_pushed_it_is_the_same(hub: LoopbackHub, tmp_path: Path) -> None:
    assert main(["export", "fashion", str(tmp_path / "folder")]) == 0
    assert (tmp_path / "folder" / "README.md").read_bytes() == BUNDLED.read_bytes()
    assert main(["push", "fashion", NAME]) == 0
    assert hub.files(NAME)["README.md"] == BUNDLED.read_bytes()
    assert main(["push", "fashion", NAME, "--license", "apache-2.0"]) == 0
    card = ModelCard(hub.files(NAME)["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert "Weights: apache-2.0." in card.text and "Weights: MIT" not in card.text


def test_its_numbers_are_those_measured() -> None:
    comparison = json.loads(BUNDLED.with_name("comparison.json").read_text(encoding="utf-8"))
    (result,) = ModelCard.load(BUNDLED).data.eval_results
    measured = comparison["rows"]["negative_elbo"]["models"]["fashion"]["value"]
    assert result.metric_value == round(measured / math.log(2), 4)
    assert f"{comparison['examples']:,} test images" in result.dataset_name


@pytest.mark.parametrize("kind", CARDS)
def test_a_card_is_kept_as_it_is(tmp_path: Path, kind: str) -> None:
    VDVAE(SMALL).save_pretrained(tmp_path / "first")
    (tmp_path / "first" / "README.md").write_bytes(CARDS[kind])
    model = VDVAE.from_pretrained(tmp_path / "first")
    model.save_pretrained(tmp_path / "second")
    assert (tmp_path / "second" / "README.md").read_bytes() == CARDS[kind]
    (tmp_path / "first" / "README.md").unlink()  # gone since: then what is known makes one
    model.save_pretrained(tmp_path / "third")
    assert ModelCard.load(tmp_path / "third" / "README.md").data.library_name == "vdvae_lr"


@pytest.mark.parametrize("kind", CARDS)
def test_a_licence_that_is_given_is_put_on_a_kept_card(tmp_path: Path, kind: str) -> None:
    VDVAE(SMALL).save_pretrained(tmp_path / "first")
    (tmp_path / "first" / "README.md").write_bytes(CARDS[kind])
    model = VDVAE.from_pretrained(tmp_path / "first")
    model.provenance = dataclasses.replace(model.provenance, licence="cc0-1.0")
    if kind in BROKEN:
        with refused(f"{tmp_path}/first/README.md", "metadata that cannot be read", "mend or remove it"):
            model.save_pretrained(tmp_path / "second")
        return
    model.save_pretrained(tmp_path / "second")
    card = ModelCard.load(tmp_path / "second" / "README.md")
    assert card.data.license == "cc0-1.0"
    assert "Weights: cc0-1.0." in card.text and "Weights: MIT" not in card.text


def test_another_readme_is_no_card(tmp_path: Path) -> None:
    VDVAE(SMALL).save_pretrained(tmp_path / "first")
    (tmp_path / "first" / "README.md").write_text("# My notes\n")
    VDVAE.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    assert "## How to load it" in (tmp_path / "second" / "README.md").read_text()
