"""The choice of what computes the likelihood: any doubt about a kernel leaves the plain formula, and says so.

Stand-ins take the place of the kernel, and a CPU that of the card.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from small_config import SMALL
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture, WithSlopes
from vdvae_lr.processes.world import World
from vdvae_lr.training import kernels
from vdvae_lr.training.kernels import choose_if_better, choose_kernel, triton_kernel

Kernel = Callable[[Tensor, Tensor, Bins], tuple[Tensor, Tensor]]


def right(parameters: Tensor, image: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    log_prob, slopes = LogisticMixture(parameters.double(), image.shape[1], bins).with_slopes(image)
    return log_prob.float(), slopes.float()


def wrong_in_one_branch(parameters: Tensor, image: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    return right(parameters, image, replace(bins, highest_above=2.0))


def wrong_in_the_last_row(parameters: Tensor, image: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    log_prob, slopes = right(parameters, image, bins)
    slopes[-1, -1, -1] += 1
    return log_prob, slopes


def not_a_number(parameters: Tensor, image: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    log_prob, slopes = right(parameters, image, bins)
    log_prob[0, 0, 0] = torch.nan
    return log_prob, slopes


def broken(parameters: Tensor, image: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
    raise ValueError("no such instruction\nand more")


@pytest.fixture
def model() -> VDVAE:
    return VDVAE(SMALL)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every kernel takes 1 ms, and the formula 2."""
    monkeypatch.setattr(kernels, "_milliseconds", lambda ways, device: [1.0, 2.0])
    return


def chosen(model: VDVAE, kernel: WithSlopes, world: World) -> str:
    return choose_if_better(model, 2, world, lambda: kernel)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("likelihood", ["normalised", "published_5bit"])
def test_a_right_and_faster_kernel_is_taken(fast: None, world: World, channels: int, likelihood: str) -> None:
    model = VDVAE(replace(SMALL, image_channels=channels, likelihood=likelihood, bits=5))
    line = chosen(model, right, world)
    assert line == (
        "Likelihood: Triton kernel, because its values are right and it takes 1 ms where the plain formula takes 2 ms."
    )
    assert model.mixture_kernel is right
    assert model.generate(1).likelihood._kernel is right


@pytest.mark.parametrize("kernel", [wrong_in_one_branch, wrong_in_the_last_row, not_a_number])
def test_a_kernel_with_other_values_is_not_taken(fast: None, model: VDVAE, world: World, kernel: Kernel) -> None:
    line = chosen(model, kernel, world)
    assert line.startswith("Likelihood: plain formula, because the Triton kernel's values differ (errors ")
    assert model.mixture_kernel is None


def test_a_kernel_that_fails_is_not_taken(model: VDVAE, world: World) -> None:
    assert chosen(model, broken, world) == (
        "Likelihood: plain formula, because the Triton kernel fails here (ValueError: no such instruction)."
    )
    assert model.mixture_kernel is None


def test_a_slow_kernel_is_not_taken(model: VDVAE, world: World) -> None:
    def slow(*given: Tensor | Bins) -> tuple[Tensor, Tensor]:
        time.sleep(0.02)
        return right(*given)  # type: ignore[arg-type]

    assert chosen(model, slow, world).startswith("Likelihood: plain formula, because the Triton kernel is no faster (2")
    assert model.mixture_kernel is None


def test_without_triton_the_formula_stays(model: VDVAE, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "vdvae_lr.model.mixture_kernel", raising=False)
    line = choose_if_better(model, 2, world, triton_kernel)
    assert line == "Likelihood: plain formula, because Triton is not installed."


def test_all_processes_take_the_same(fast: None, model: VDVAE) -> None:
    class BesideARefusal(World):
        def highest(self, number: int) -> int:
            return max(number, 1)

    line = chosen(model, right, BesideARefusal(0, 2, torch.device("cpu")))
    assert line == "Likelihood: plain formula, because another process cannot use the Triton kernel."
    assert model.mixture_kernel is None


def test_a_card_that_no_longer_answers_ends_the_run_with_advice(model: VDVAE) -> None:
    """As after an illegal address. The device "meta" answers no question either."""
    with pytest.raises(InputError, match=r"no such instruction\), and the card no longer .* --kernels plain"):
        chosen(model, broken, World(0, 1, torch.device("meta")))


def test_the_draws_of_a_run_stay_what_they_are(model: VDVAE, world: World) -> None:
    before = torch.get_rng_state()
    chosen(model, right, world)
    assert torch.equal(torch.get_rng_state(), before)


def test_on_a_cpu_there_is_nothing_to_choose(model: VDVAE, world: World) -> None:
    assert choose_kernel(model, 2, world) == ""
    assert model.mixture_kernel is None
