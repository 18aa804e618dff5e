"""The noise response of several models: no number is lost on the way to the table, the JSON and the picture."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageChops
from rich.console import Console
from torch import Tensor

from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.images import as_pictures
from vdvae_lr.pictures.noise_pictures import noise_picture, noise_pictures
from vdvae_lr.pictures.picture_grid import picture_grid
from vdvae_lr.report.noise_report import NoiseReport, noise_json, noise_table


def a_report(groups: tuple[int, ...] = (0, 1, 2)) -> NoiseReport:
    """Two models, two quantities; every number is another one."""

    def quantities(start: float) -> list[Quantity]:
        found = []
        for number, key in enumerate(("noise_rms_raw_0.3", "noise_ssim_raw_0.3")):
            values = [Measurement(start + number / 10 + part / 100, 0.002, 9) for part in range(6)]
            levels = {1: values[4], 8: values[5]}
            found.append(Quantity(key, f"title of {key}", "", values[0], tuple(values[1:4]), levels))
        return found

    models = {"before": quantities(0.1), "[LR]": quantities(0.5)}
    return NoiseReport(models, {"before": "fashion", "[LR]": "runs/lr"}, "images", "test", 9, 6, (1, 8, 8), groups)


def printed(report: NoiseReport) -> str:
    console = Console(width=160, markup=False)
    with console.capture() as captured:
        console.print(noise_table(report))
    return captured.get()


def test_table_has_models_beside_each_other_and_resolutions_below() -> None:
    lines = printed(a_report()).splitlines()
    assert lines[0].strip() == "images, test split, 9 images, seed 6, noise in every group"
    rows = [line.split() for line in lines[2:8]]
    assert lines[1].split() == ["before", "[LR]"]
    assert rows[0] == ["title", "of", "noise_rms_raw_0.3", "0.1000", "±", "0.0020", "0.5000", "±", "0.0020"]
    assert rows[2] == ["only", "in", "groups", "of", "8x8", "0.1500", "±", "0.0020", "0.5500", "±", "0.0020"]
    assert rows[3] == ["title", "of", "noise_ssim_raw_0.3", "0.2000", "±", "0.0020", "0.6000", "±", "0.0020"]
    assert rows[5][-6:] == ["0.2500", "±", "0.0020", "0.6500", "±", "0.0020"]


def test_resolutions_are_left_out_where_there_is_no_noise() -> None:
    still = [replace(quantity, key="noise_rms_raw_0.0") for quantity in a_report().models["before"]]
    text = printed(replace(a_report(), models={"before": still}))
    assert "title of noise_rms_raw_0.3" in text
    assert "only in groups" not in text


def test_table_says_where_the_noise_was() -> None:
    assert "seed 6, noise in groups 1-2" in printed(a_report((1, 2)))


def test_json_holds_every_number() -> None:
    report = a_report((1, 2))
    found = json.loads(noise_json(report))
    assert (found["dataset"], found["split"], found["images"], found["seed"]) == ("images", "test", 9, 6)
    assert (found["resolutions"], found["groups"]) == ([1, 8, 8], [1, 2])
    assert found["sources"] == {"before": "fashion", "[LR]": "runs/lr"}
    assert list(found["quantities"]) == ["noise_rms_raw_0.3", "noise_ssim_raw_0.3"]
    for name, quantities in report.models.items():
        for quantity in quantities:
            levels = found["quantities"][quantity.key]["models"][name]
            assert quantity.total is not None
            assert levels["total"] == {"value": quantity.total.value, "standard_error": 0.002, "images": 9}
            assert [group["value"] for group in levels["groups"]] == [group.value for group in quantity.groups]
            by_resolution = {int(level): part["value"] for level, part in levels["resolutions"].items()}
            assert by_resolution == {level: part.value for level, part in quantity.resolutions.items()}


@pytest.fixture
def models(small_model: VDVAE) -> dict[str, VDVAE]:
    other = VDVAE(small_model.config).double()
    other.load_state_dict({name: 0.9 * tensor for name, tensor in small_model.state_dict().items()})
    return {"a": small_model, "b": other}


def test_picture_has_the_images_then_every_model_with_every_unit(models: dict[str, VDVAE], pixels: Tensor) -> None:
    shown = pixels[:3]
    rows, labels = [as_pictures(shown)], ["image"]
    for name, model in models.items():
        for unit, variances in (("raw", (0.0, 0.3)), ("prior_scale", (0.3,))):
            more = noise_pictures(model, shown, variances=variances, unit=unit, seed=4, name=name, groups=[2])  # type: ignore[arg-type]
            rows += more[0]
            labels += more[1]
    found = noise_picture(models, shown, variances=(0.0, 0.3), units=("raw", "prior_scale"), seed=4, groups=[2])
    assert len(labels) == 7
    assert same(found, picture_grid(rows, labels, title="Mean images; noise of the stated variance in group 2"))
    assert torch.is_grad_enabled()


def test_no_noise_is_shown_once(small_model: VDVAE, pixels: Tensor) -> None:
    both = noise_picture({"a": small_model}, pixels, variances=(0.0,), units=("raw", "prior_scale"), seed=4)
    rows, labels = noise_pictures(small_model, pixels, variances=(0.0,), unit="raw", seed=4, name="a")
    title = "Mean images; noise of the stated variance in every group"
    assert same(both, picture_grid([as_pictures(pixels), *rows], ["image", *labels], title=title))


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and ImageChops.difference(one, other).getbbox() is None
