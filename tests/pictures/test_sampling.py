"""Samples: the same picture whatever the batch, and a temperature for each group."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from recorded_events import watched
from refusals import refused

import vdvae_lr
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.latent_model import FromPrior
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.pictures import sampling
from vdvae_lr.pictures.images import Pictures, samples
from vdvae_lr.processes.cuda_graph import CheckedGraph

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")


@pytest.mark.parametrize("image", ["sample", "mean"])
def test_batches_change_nothing(small_model: VDVAE, image: str) -> None:
    whole, parts, fewer = (
        vdvae_lr.sample(small_model, count, seed=3, image=image, batch=batch)  # type: ignore[arg-type]
        for count, batch in ((5, 5), (5, 2), (3, 1))
    )
    assert whole.shape == (5, 8, 8, 3) and whole.dtype == np.uint8
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(whole[:3], fewer)
    np.testing.assert_array_equal(whole, samples(small_model, 5, seed=3, image=image)[0])  # type: ignore[arg-type]
    assert len({picture.tobytes() for picture in whole}) == 5
    assert (whole != vdvae_lr.sample(small_model, 5, seed=4, image=image)).any()  # type: ignore[arg-type]


def test_each_group_has_its_temperature(small_model: VDVAE) -> None:
    factors = (1.0, 0.3, 0.3, 2.0, 2.0)
    noise = PassNoise(small_model, 2, torch.device("cpu"), prior=True, image=False)
    noise.draw_rows([noise_key("samples", 0, number) for number in range(2)])
    assert noise.prior is not None
    sources = [FromPrior(draw, factor) for draw, factor in zip(noise.prior, factors, strict=True)]
    with torch.no_grad():
        mean = small_model.top_down(sources, 2).likelihood.mean()
    expected = ((mean + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    for words in (factors, "4x4:0.3,8:2", "1,0.3,0.3,2,2"):
        drawn = vdvae_lr.sample(small_model, 2, temperature=words, image="mean")
        np.testing.assert_array_equal(drawn, expected)


def test_temperature_0_makes_one_mean_image(small_model: VDVAE) -> None:
    cold = vdvae_lr.sample(small_model, 3, temperature=0, image="mean")
    np.testing.assert_array_equal(cold, np.broadcast_to(cold[:1], cold.shape))


@pytest.mark.parametrize(
    ("count", "batch", "cause"), [(0, 1, "count is 0"), (-1, 1, "count is -1"), (1, 0, "batch is 0")]
)
def test_no_picture_is_refused(small_model: VDVAE, count: int, batch: int, cause: str) -> None:
    with refused("", cause, "1"):
        vdvae_lr.sample(small_model, count, batch=batch)


def test_a_temperature_beyond_all_bounds_is_no_picture(small_model: VDVAE) -> None:
    with refused("the decoder makes no image", "NaN", "lower the temperature"):
        vdvae_lr.sample(small_model.float(), 2, temperature=1e30)


@pytest.mark.parametrize("name", ["fashion", "lrvdvae-fashion"])
def test_bf16_does_not_matter(name: str) -> None:
    """Why a card samples in bf16: it moves a number by a fraction of a level, and another seed by 46 levels."""
    model = VDVAE.from_pretrained(name)
    assert model.samples_in_bf16

    def drawn(precision: str, image: str, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
        return vdvae_lr.sample(model, 4, seed=seed, image=image, precision=precision).astype(int)  # type: ignore[arg-type]

    for image, root_mean_square in (("mean", 1.5), ("sample", 5.0)):  # a sampled pixel may change its component
        full, half = drawn("fp32", image), drawn("bf16", image)
        difference = abs(half - full)
        assert 0 < difference.mean() < 0.5 and (difference > 8).mean() < 0.005
        assert (difference**2).mean() ** 0.5 < root_mean_square
        assert abs((half - full).mean()) < 0.3 and abs(half.std() - full.std()) < 0.3
        assert abs(drawn("fp32", image, seed=1) - full).mean() > 20


def test_a_cpu_samples_in_float32_unasked(small_model: VDVAE) -> None:
    auto, full = (vdvae_lr.sample(small_model, 2, precision=precision) for precision in ("auto", "fp32"))  # type: ignore[arg-type]
    np.testing.assert_array_equal(auto, full)
    with refused("precision", "fp8", "auto or fp32 or bf16"):
        vdvae_lr.sample(small_model, 2, precision="fp8")  # type: ignore[arg-type]


def drawing(model: VDVAE, *, graph: bool) -> sampling._Drawing:
    return sampling._Drawing(model, (1.0,) * len(model.resolutions), 3, "sample", nullcontext, graph)


def test_a_batch_begins_without_waiting_for_the_device(small_model: VDVAE) -> None:
    draws = drawing(small_model, graph=False)
    with watched() as traffic:
        draws.begin(range(2))
    assert traffic.waits == []


def test_a_replay_draws_every_batch_from_the_same_buffers(
    small_model: VDVAE, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With plain calls in the place of replays: the smaller last batch, and noise that lies where a graph reads it."""
    monkeypatch.setattr(sampling, "CheckedGraph", partial(CheckedGraph, capture=lambda function, calls: function))
    draws = drawing(small_model, graph=True)
    numbers = [range(3), range(3, 6), range(6, 9), range(9, 11)]
    addresses, parts = set(), list[Pictures]()
    for batch in numbers:
        parts.append(draws.begin(batch)())
        assert draws._noise is not None
        addresses.add(draws._noise.posterior[0].data_ptr())
    np.testing.assert_array_equal(np.concatenate(parts), vdvae_lr.sample(small_model, 11, seed=3))
    assert len(addresses) == 1 and capsys.readouterr().err == ""


@pytest.mark.parametrize("ahead", [0, 1])
def test_the_next_batch_begins_before_the_last_one_is_read(ahead: int) -> None:
    events = []

    def begin(number: int) -> partial[None]:
        events.append(f"begin {number}")
        return partial(events.append, f"read {number}")

    list(sampling._results(map(begin, range(3)), ahead))
    assert (
        events
        == [
            ["begin 0", "read 0", "begin 1", "read 1", "begin 2", "read 2"],
            ["begin 0", "begin 1", "read 0", "begin 2", "read 1", "read 2"],
        ][ahead]
    )


@pytest.mark.cuda
@CUDA
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_card_draws_the_same_pictures_from_a_graph(
    small_model: VDVAE, capsys: pytest.CaptureFixture[str], precision: sampling.SamplePrecision
) -> None:
    model = small_model.to(device="cuda", dtype=torch.float32)
    plain, graph = (
        np.concatenate(list(sampling.sample_batches(model, 23, 1.0, 3, None, 4, precision, cuda_graph=cuda_graph)))
        for cuda_graph in (False, True)
    )
    assert abs(plain.astype(int) - graph).mean() < 0.1
    assert len({picture.tobytes() for picture in graph}) == 23
    assert capsys.readouterr().err == ""
