"""What `compare` and `noise` do with several evaluations: tables, files and pictures; and models that differ."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from vdvae_lr.cli.shared.measured_models import check_comparable
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.document import Evaluation, read_evaluations, write_evaluations
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.evaluation_pictures import comparison_pictures
from vdvae_lr.report.comparison_table import ROWS, comparison_table, noise_table


def evaluation(name: str, quantities: list[Quantity], **settings: object) -> Evaluation:
    return Evaluation(
        name, f"runs/{name}", {}, 192, (1, 8, 8), "images", "test", 9, 6, {}, tuple(quantities), settings=settings
    )


def compared(content_dimensions: int = 0) -> dict[str, Evaluation]:
    """Two models; every cell of their table has another number."""
    keys = [key for key in ROWS if content_dimensions or "_content" not in key]
    return {
        name: evaluation(
            name,
            [Quantity(key, key, "", Measurement(start + number / 100, 0.002, 9)) for number, key in enumerate(keys)],
            content_dimensions=content_dimensions,
        )
        for name, start in (("before", 1.0), ("[LR]", 2.0))
    }


def noisy(groups: str = "all") -> dict[str, Evaluation]:
    def quantities(start: float) -> list[Quantity]:
        found = []
        for number, key in enumerate(("noise_rms_raw_0.3", "noise_ssim_raw_0.3")):
            values = [Measurement(start + number / 10 + part / 100, 0.002, 9) for part in range(6)]
            found.append(
                Quantity(key, f"title of {key}", "", values[0], tuple(values[1:4]), {1: values[4], 8: values[5]})
            )
        return found

    return {
        name: evaluation(name, quantities(start), noise_groups=groups)
        for name, start in (("before", 0.1), ("[LR]", 0.5))
    }


def printed(table: object) -> str:
    console = Console(width=160, markup=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_a_comparison_shows_values_with_errors_and_names_as_given() -> None:
    text = printed(comparison_table(compared()))
    assert "images, test split, 9 images, seed 6" in text
    assert "before" in text
    assert "[LR]" in text
    assert "1.0000 ± 0.0020" in text
    assert "2.0000 ± 0.0020" in text
    assert all(title in text for key, title in ROWS.items() if "_content" not in key)
    assert "dims" not in text


def test_the_bound_is_also_stated_without_padding() -> None:
    text = printed(comparison_table(compared(content_dimensions=147)))
    assert "bound on 147 dims, nats/dim" in text
    assert "bound on 147 dims, bits/dim" in text


def bands(start: float = 0.1) -> list[Quantity]:
    """One unit and variance, at three spatial scales, with parts by resolution."""
    return [
        Quantity(
            f"noise_band_{band}_prior_scale_0.3",
            f"image RMS at {band}x{band}",
            "",
            Measurement(start + band / 100, 0.002, 9),
            resolutions={1: Measurement(0.7, 0.002, 9), 8: Measurement(0.8, 0.002, 9)},
        )
        for band in (4, 2, 1)
    ]


def test_a_comparison_ends_with_the_bands_that_were_measured() -> None:
    found = {name: replace(each, quantities=(*each.quantities, *bands())) for name, each in compared().items()}
    lines = [line for line in printed(comparison_table(found)).splitlines() if "image RMS at" in line]
    assert [line.split()[3] for line in lines] == ["4x4", "2x2", "1x1"]
    assert lines[0].split()[4:] == ["0.1400", "±", "0.0020"] * 2


def test_bands_have_one_row_each_and_no_resolutions() -> None:
    found = evaluation("before", [*noisy()["before"].quantities, *bands()], noise_groups="all")
    text = printed(noise_table({"before": found}))
    assert [line.split()[3] for line in text.splitlines() if "image RMS at" in line] == ["4x4", "2x2", "1x1"]
    assert "0.7000" not in text


def test_noise_has_models_beside_each_other_and_resolutions_below() -> None:
    lines = printed(noise_table(noisy())).splitlines()
    assert lines[0].strip() == "images, test split, 9 images, seed 6, noise in every group"
    rows = [line.split() for line in lines[2:8]]
    assert lines[1].split() == ["before", "[LR]"]
    assert rows[0] == ["title", "of", "noise_rms_raw_0.3", "0.1000", "±", "0.0020", "0.5000", "±", "0.0020"]
    assert rows[2] == ["only", "in", "groups", "of", "8x8", "0.1500", "±", "0.0020", "0.5500", "±", "0.0020"]
    assert rows[3] == ["title", "of", "noise_ssim_raw_0.3", "0.2000", "±", "0.0020", "0.6000", "±", "0.0020"]
    assert rows[5][-6:] == ["0.2500", "±", "0.0020", "0.6500", "±", "0.0020"]


def test_resolutions_are_left_out_where_there_is_no_noise() -> None:
    still = [replace(quantity, key="noise_rms_raw_0.0") for quantity in noisy()["before"].quantities]
    text = printed(noise_table({"before": evaluation("before", still, noise_groups="all")}))
    assert "title of noise_rms_raw_0.3" in text
    assert "only in groups" not in text


def test_the_table_says_where_the_noise_was() -> None:
    assert "seed 6, noise in groups 1-2" in printed(noise_table(noisy("1:")))


def test_a_file_holds_every_number_of_every_model(tmp_path: Path) -> None:
    for evaluations in (compared(), noisy()):
        write_evaluations(evaluations, tmp_path / "several.json")
        assert read_evaluations(tmp_path / "several.json") == evaluations


def test_a_comparison_of_an_earlier_version_is_read() -> None:
    """The bundled model's comparison was written before quantities had their present keys."""
    path = bundled_folder("models") / "fashion" / "comparison.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    (found,) = read_evaluations(path).values()
    assert (found.dataset, found.split, found.examples, found.dimensions) == ("fashion", "test", 10_000, 1024)
    for earlier, key in (
        ("negative_elbo", "negative_elbo"),
        ("latent_reconstruction", "lr_information"),
        ("noise_response_prior_scale_0.4", "noise_rms_prior_scale_0.4"),
    ):
        quantity = found.quantity(key)
        assert quantity is not None
        assert quantity.total is not None
        assert quantity.total.value == rows[earlier]["models"]["fashion"]["value"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"rows": 1, "sources": {"a": "b"}}', '{"format": "x"}'])
def test_another_file_is_no_comparison(tmp_path: Path, content: str) -> None:
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(InputError, match="holds no comparison of models"):
        read_evaluations(tmp_path / "file.json")


def test_models_that_differ_are_refused(small_model: VDVAE) -> None:
    other = VDVAE(replace(small_model.config, bits=5))
    with pytest.raises(InputError, match=r"'before' and 'LR' differ in bits \(8 and 5\)"):
        check_comparable({"before": small_model, "LR": other})
    check_comparable({"before": small_model, "LR": VDVAE(small_model.config)})


def test_pictures_have_a_row_for_each_model(small_model: VDVAE, pixels: Tensor) -> None:
    one = comparison_pictures({"a": small_model}, pixels[:2], seed=0)
    two = comparison_pictures({"a": small_model, "b": small_model}, pixels[:2], seed=0)
    assert list(one) == ["reconstructions.png", "samples.png", "noise_response.png"]
    rows = {name: round((two[name].height - one[name].height) / 66) for name in one}  # a tile of 64 and its gap
    assert rows == {"reconstructions.png": 1, "samples.png": 2, "noise_response.png": 3}
    assert torch.is_grad_enabled()
