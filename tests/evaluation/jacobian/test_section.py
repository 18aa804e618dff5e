"""The section over images and samples: averages, processes, notes, and what it refuses.

Shapes: B images.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from measured_pixels import task_of
from torch import Tensor

from vdvae_lr.datasets.sources import ArraySource
from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.jacobian.bi_lipschitz import (
    LatentSpectrum,
    LocalBiLipschitz,
    LocalGeometry,
    NoGeometryError,
    local_bi_lipschitz,
)
from vdvae_lr.evaluation.jacobian.section import LocalTable, measure_bi_lipschitz
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.elbo import group_rates_nats
from vdvae_lr.model.latent_model import LatentPass
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World

Measured = tuple[list[Quantity], dict[str, list[dict[str, object]]], list[str]]


def measuring(pixels: Tensor, world: World, batch: int = 3, seed: int = 4) -> Measuring:
    source = ArraySource(pixels.permute(0, 2, 3, 1).numpy(), np.arange(len(pixels)), "pixels")
    return Measuring(source, len(pixels), batch, seed, world, lambda items, total, what: items)


def measured_parts(*arguments: Any, **options: Any) -> Measured:
    """Quantities, details and notes."""
    found = measure_bi_lipschitz(task_of(*arguments, **{f"jacobian_{name}": value for name, value in options.items()}))
    return list(found.quantities), dict(found.details), list(found.notes)


def by_key(found: Measured) -> dict[str, Quantity]:
    return {quantity.key: quantity for quantity in found[0]}


def test_section_averages_over_images(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    quantities, details, notes = measured_parts(
        small_model, measuring(pixels, world), images=2, values=5, tolerance=1e-6, confidence=0.9
    )
    found = {quantity.key: quantity for quantity in quantities}
    noise = PassNoise(small_model, 7, torch.device("cpu"), image=False)
    noise.draw_rows([noise_key("evaluate", 4, index) for index in range(7)])
    all_passed = small_model.infer(pixels.double(), noise.posterior)
    residual = all_passed.likelihood.mean() - pixels.double() / 127.5 + 1
    sigma = residual.square().mean().sqrt().item()
    assert found["decoder_sigma"].total is not None
    assert found["decoder_sigma"].total.value == pytest.approx(sigma, rel=1e-9)
    assert found["decoder_sigma"].total.images == 7
    passed = small_model.infer(pixels[:2].double(), [draw[:2] for draw in noise.posterior], keep_contexts=True)
    noise = PassNoise(small_model, 2, torch.device("cpu"), prior=True, image=False)
    noise.draw_rows([noise_key("bi-Lipschitz", 4, index) for index in range(2)])
    assert noise.prior is not None
    for suffix, one_pass in (
        ("", passed),
        ("_prior_samples", small_model.generate(2, noise.prior, keep_contexts=True)),
    ):
        results = local_bi_lipschitz(small_model, one_pass, tolerance=1e-6)
        for key, expected in expectations([one.prior_scale for one in results], sigma).items():
            quantity = found[key + suffix]
            parts = [*quantity.groups, *([quantity.total] if quantity.total else [])]
            assert len(parts) == expected.shape[1] or key == "composite_deviation_prior_scale"
            for part, values in zip(parts, expected.T, strict=True):
                assert part.value == pytest.approx(values.mean(), rel=1e-5)
                if np.isfinite(values).all():
                    assert part.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(2), rel=1e-3, abs=1e-9)
                assert part.images == 2
        raw = found[f"largest_singular_value{suffix}"].groups[3].value
        assert raw == pytest.approx(np.mean([one.raw.spectra[3].largest for one in results]), rel=1e-9)
        assert found[f"clamped_share{suffix}"].total is not None
    check_details(details, found)
    rates = group_rates_nats(passed.posteriors, passed.priors) / 192
    check_divergences(details["spectra"], torch.cat([rates, rates.sum(1, keepdim=True)], dim=1), found)
    assert any("0 by rank" in note for note in notes)


def expectations(geometries: list[LocalGeometry], sigma: float) -> dict[str, np.ndarray]:
    """By key: (images, parts)."""

    def table(read: Callable[[LatentSpectrum], float]) -> np.ndarray:
        return np.array([[read(s) for s in (*one.spectra, one.together)] for one in geometries])

    return {
        "largest_singular_value_prior_scale": table(lambda s: s.largest),
        "smallest_singular_value_prior_scale": table(lambda s: s.smallest),
        "numerical_rank_prior_scale": table(lambda s: s.numerical_rank),
        "kappa_min_prior_scale": table(lambda s: s.kappa_min),
        "local_bi_lipschitz_prior_scale": table(lambda s: s.local_bi_lipschitz),
        "bi_lipschitz_of_most_prior_scale": table(lambda s: s.bi_lipschitz_of_most(0.9)),
        "theorem_bound": table(lambda s: s.theorem_bound_nats(sigma) / 192),
        "constant_bound": table(lambda s: s.constant_bound_nats(sigma) / 192),
        "composite_deviation_prior_scale": np.array([one.deviations for one in geometries]),
    }


def check_divergences(entries: list[dict[str, Any]], rates: Tensor, found: dict[str, Quantity]) -> None:
    """Every image's measured KL stands beside its least KL; samples have none."""
    images = [entry for entry in entries if (entry["of"], entry["unit"]) == ("images", "prior_scale")]
    assert [entry["rate"] for entry in images] == pytest.approx(rates.flatten().tolist())
    total = found["theorem_bound"].total
    assert total is not None
    assert np.mean([entry["least_kl"] for entry in images if entry["group"] is None]) == pytest.approx(total.value)
    assert {entry["rate"] for entry in entries if entry["of"] == "prior_samples"} == {None}


def check_details(details: dict[str, list[dict[str, object]]], found: dict[str, Quantity]) -> None:
    entries = json.loads(json.dumps(details, allow_nan=False))["spectra"]
    assert len(entries) == 2 * 2 * 2 * 6  # latents of, image, unit, part
    chosen = [
        entry
        for entry in entries
        if (entry["of"], entry["unit"], entry["group"]) == ("prior_samples", "prior_scale", None)
    ]
    assert [entry["example"] for entry in chosen] == [0, 1]
    assert all(len(entry["singular_values"]) == 5 and entry["local_bi_lipschitz"] is None for entry in chosen)
    total = found["largest_singular_value_prior_scale_prior_samples"].total
    assert total is not None
    assert np.mean([entry["singular_values"][0] for entry in chosen]) == pytest.approx(total.value, rel=1e-12)


def test_batches_and_processes_do_not_matter(
    small_model: VDVAE,
    pixels: Tensor,
    world: World,
    in_worlds: Callable[[int, Callable[[World], Measured]], list[Measured]],
) -> None:
    def measured(one: World, batch: int = 3) -> Measured:
        return measured_parts(small_model, measuring(pixels, one, batch), images=2, values=2, tolerance=1e-4)

    alone = measured(world, batch=1)
    for found in (*in_worlds(2, measured), *in_worlds(3, measured)):
        assert found[2] == alone[2]
        for one, other in zip(found[0], alone[0], strict=True):
            assert (one.key, one.total is None) == (other.key, other.total is None)
            for part, expected in zip(one.groups, other.groups, strict=True):
                assert part.value == pytest.approx(expected.value, rel=1e-6)
        assert [entry["example"] for entry in found[1]["spectra"]] == [e["example"] for e in alone[1]["spectra"]]


def test_iterated_section_says_what_is_not_known(
    small_model: VDVAE, pixels: Tensor, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterating = partial(local_bi_lipschitz, dense_dimensions=0)
    monkeypatch.setattr("vdvae_lr.evaluation.jacobian.section.local_bi_lipschitz", iterating)
    found = measured_parts(small_model, measuring(pixels, world), images=1, values=2, tolerance=1e-3)
    smallest = by_key(found)["smallest_singular_value"]
    assert [math.isnan(part.value) for part in smallest.groups] == [False, False, False, True, True]
    assert smallest.groups[0].standard_error is None
    assert any("are not known" in note for note in found[2])
    assert json.dumps(found[1], allow_nan=False)


def test_none_wanted(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    assert measured_parts(small_model, measuring(pixels, world), images=0, values=2, tolerance=0.1) == (
        [],
        {},
        [],
    )


def refused(small_model: VDVAE, pixels: Tensor, images: int) -> Callable[[World], str]:
    def measured(one: World) -> str:
        with pytest.raises(UnmeasurableError) as refusal:
            measured_parts(small_model, measuring(pixels, one), images=images, values=2, tolerance=0.1)
        return str(refusal.value)

    return measured


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_process_refuses_a_prior_without_scale(
    small_model: VDVAE, pixels: Tensor, size: int, in_worlds: Callable[[int, Callable[[World], str]], list[str]]
) -> None:
    """Of three processes the last has no image of its own."""
    small_model.float()
    with torch.no_grad():
        small_model.decoder.blocks[1].prior.expand.bias[3:6] = -200  # log-scales: exp(-200) is 0 in float32
    found = in_worlds(size, refused(small_model, pixels, 2))
    assert len(set(found)) == 1
    assert "latent group 1 has a scale of 0" in found[0]


@pytest.mark.parametrize("where", ["images", "prior_samples"])
def test_every_process_refuses_what_one_does(
    small_model: VDVAE,
    pixels: Tensor,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    in_worlds: Callable[[int, Callable[[World], str]], list[str]],
) -> None:
    add = LocalTable.add

    def add_or_refuse(
        table: LocalTable, examples: Sequence[int], found: Sequence[LocalBiLipschitz], passed: LatentPass
    ) -> None:
        if table.where == where and 1 in examples:
            raise NoGeometryError(3)
        add(table, examples, found, passed)

    monkeypatch.setattr(LocalTable, "add", add_or_refuse)
    found = in_worlds(2, refused(small_model, pixels, 2))
    assert len(set(found)) == 1
    assert "latent group 3" in found[0]


@pytest.mark.parametrize("size", [1, 2])
def test_every_process_refuses_damaged_images(
    small_model: VDVAE, pixels: Tensor, size: int, in_worlds: Callable[[int, Callable[[World], str]], list[str]]
) -> None:
    with torch.no_grad():
        small_model.mixture_output.bias[0] = math.nan
    assert all("not finite" in words for words in in_worlds(size, refused(small_model, pixels, 1)))


@pytest.mark.parametrize("size", [1, 2])
def test_every_process_refuses_a_decoder_without_sigma(
    small_model: VDVAE,
    pixels: Tensor,
    size: int,
    monkeypatch: pytest.MonkeyPatch,
    in_worlds: Callable[[int, Callable[[World], str]], list[str]],
) -> None:
    monkeypatch.setattr(
        "vdvae_lr.evaluation.jacobian.section.squared_residuals", lambda target, image: torch.zeros(len(target))
    )
    assert all("leaves no σ" in words for words in in_worlds(size, refused(small_model, pixels, 1)))


def test_note_names_the_wide_groups(small_model: VDVAE, pixels: Tensor, world: World) -> None:
    def note() -> str:
        found = measured_parts(small_model, measuring(pixels, world), images=1, values=1, tolerance=0.1)
        return next(one for one in found[2] if "by rank" in one)

    assert note().startswith("Latent groups 3-4, and all groups together, have more latents than")
    with torch.no_grad():
        small_model.mixture_output.weight.zero_()
        small_model.mixture_output.bias.fill_(-2)
        small_model.mixture_output.bias[3:].view(3, 3, 3)[:, 2] = 0  # no channel leans on another
    assert note().startswith("Latent groups 0-4, and all groups together, have more")
