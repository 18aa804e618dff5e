"""Samples and reconstructions are scored as they are made, with the same numbers in any world."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from measured_pixels import measuring_of
from refusals import refused
from stand_in_extractor import stand_in_extractor
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.quality.scores import frechet_distance, precision_and_recall
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.pictures.images import Pictures, reconstructions
from vdvae_lr.pictures.picture_quality import WantedSets, measure_picture_quality
from vdvae_lr.pictures.sampling import sample
from vdvae_lr.processes.world import World

WANTED = WantedSets(("samples", "reconstructions"), 6, ("1.0", "0.5"), None)
KINDS = ("fid", "kid", "precision", "recall")


def features(pictures: Pictures) -> Tensor:
    return stand_in_extractor()(torch.from_numpy(pictures).permute(0, 3, 1, 2))


def measure(model: VDVAE, pixels: Tensor, world: World, wanted: WantedSets = WANTED) -> Findings:
    images = stand_in_extractor()(pixels)
    return measure_picture_quality(
        model, measuring_of(pixels, world, batch=2, seed=3), stand_in_extractor(), images, wanted
    )


def numbers(findings: Findings) -> dict[str, float]:
    return {each.key: each.total.value for each in findings.quantities if each.total is not None}


def test_scores_are_of_the_pictures_that_the_commands_make(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measure(small_model, pixels, world)
    values, images = numbers(found), features(pixels.permute(0, 2, 3, 1).numpy())
    for temperature in WANTED.temperature:
        drawn = features(sample(small_model, 6, temperature=temperature, seed=3))
        assert values[f"fid_samples_{temperature}"] == pytest.approx(frechet_distance(images, drawn), rel=1e-4)
    rebuilt = features(reconstructions(small_model, pixels[:6], seed=3)[1])
    assert values["fid_reconstructions"] == pytest.approx(frechet_distance(images[:6], rebuilt), rel=1e-4)
    shares = precision_and_recall(images[:6].double(), rebuilt.double())
    assert (values["precision_reconstructions"], values["recall_reconstructions"]) == shares
    assert {each.total.images for each in found.quantities if each.total} == {6}


def test_any_world_finds_the_same(small_model: VDVAE, pixels: Tensor, in_worlds: Callable[..., list[Findings]]) -> None:
    (alone,) = in_worlds(1, lambda world: measure(small_model, pixels, world))
    expected = numbers(alone)
    assert {f"{kind}_{name}" for kind in KINDS for name in ("samples_1.0", "samples_0.5", "reconstructions")} <= set(
        expected
    )
    for size in (2, 3):
        first, *others = in_worlds(size, lambda world: measure(small_model, pixels, world))
        assert numbers(first) == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert all(not other.quantities for other in others)


def test_more_samples_than_images_and_no_more_reconstructions(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    found = measure(small_model, pixels, world, replace(WANTED, samples=9, temperature=("1.0",)))
    counts = {each.key: each.total.images for each in found.quantities if each.total}
    assert (counts["fid_samples_1.0"], counts["fid_reconstructions"]) == (9, 7)


def test_only_the_wanted_sets_are_made(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    started: list[str] = []

    def track(items: Iterable[object], total: int, what: str) -> Iterable[object]:
        started.append(what)
        return items

    measuring = replace(measuring_of(pixels, world), track=track, name="LR")
    wanted = replace(WANTED, sets=("reconstructions",))
    measure_picture_quality(small_model, measuring, stand_in_extractor(), stand_in_extractor()(pixels), wanted)
    assert started == ["LR: reconstructions"]


@pytest.mark.parametrize("name", ["samples", "reconstructions"])
def test_pictures_that_are_not_finite_are_refused(small_model: VDVAE, pixels: Tensor, world: World, name: str) -> None:
    with torch.no_grad():
        small_model.decoder.gain.fill_(torch.nan)
    with refused(f"the model's {name}", "NaN or infinite", "sound weights"):
        measure(small_model, pixels, world, replace(WANTED, sets=(name,)))


def test_a_temperature_of_another_model_is_refused(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    with pytest.raises(InputError, match="temperature"):
        measure(small_model, pixels, world, replace(WANTED, temperature=("1,1",)))
