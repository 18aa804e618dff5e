"""The discretised logistic mixture: masses that sum to one, and images that carry the right values and gradients.

Every test has one set of mixture numbers for all pixels of one image, so that pixels are values to sum over, or draws.
Shapes: K components, C channels, N pixels.
"""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from closeness import relative_error
from scipy.special import expit, logit
from scipy.stats import ks_2samp
from torch import Tensor

from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture
from vdvae_lr.model.pixels import PixelScale

ALL_BITS = range(1, 9)
LEVELS = torch.arange(256.0, dtype=torch.float64)


@dataclass(frozen=True)
class Numbers:
    """One pixel's mixture in numpy; coefficients (before tanh) in the slots r→g, r→b, g→b, none with one channel."""

    logits: np.ndarray  # (K,)
    means: np.ndarray  # (C, K)
    log_scales: np.ndarray  # (C, K)
    coefficients: np.ndarray | None = None  # (3, K)

    def parameters(self, pixels: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """The output convolution's numbers, the same for all pixels: (1, n, 1, N)."""
        blocks = [self.means, self.log_scales] + ([self.coefficients] if self.coefficients is not None else [])
        flat = np.concatenate([self.logits, np.stack(blocks, axis=1).reshape(-1)])
        return torch.tensor(flat, dtype=dtype).view(1, -1, 1, 1).repeat(1, 1, 1, pixels)

    def mixture(self, pixels: int, bins: Bins | None = None) -> LogisticMixture:
        return LogisticMixture(self.parameters(pixels), len(self.means), bins or Bins.of_bits(8))


def random_numbers(channels: int, components: int, log_scale: tuple[float, float], seed: int = 0) -> Numbers:
    rng = np.random.default_rng(seed)
    return Numbers(
        logits=rng.normal(size=components),
        means=rng.uniform(-0.5, 0.5, (channels, components)),
        log_scales=rng.uniform(*log_scale, (channels, components)),
        coefficients=rng.normal(size=(3, components)) if channels == 3 else None,
    )


WIDE = (-0.5, 0.5)  # log-scales at which every 8-bit bin has more mass than 1e-5: no density approximation anywhere


def targets_of(bits: int) -> Tensor:
    return PixelScale(bits, 0.0, 1.0).target_from_levels(LEVELS).unique()


def total_mass(numbers: Numbers, bits: int, bins: Bins) -> float:
    """Sum of p over every value a pixel can take: 2^bits with one channel, 2^(3·bits) with three."""
    channels = len(numbers.means)
    values = torch.cartesian_prod(*[targets_of(bits)] * channels).view(-1, channels)
    return numbers.mixture(len(values), bins).log_prob(values.T[None, :, None]).exp().sum().item()


@pytest.mark.parametrize("bits", ALL_BITS)
def test_a_grey_pixels_masses_sum_to_one(bits: int) -> None:
    assert total_mass(random_numbers(1, 3, WIDE), bits, Bins.of_bits(bits)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("bits", range(1, 6))
def test_a_colour_pixels_masses_sum_to_one(bits: int) -> None:
    assert total_mass(random_numbers(3, 2, WIDE), bits, Bins.of_bits(bits)) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_summing_over_blue_leaves_red_and_green(bits: int) -> None:
    """Σ_b p(r, g, b) = Σ_k π_k p_k(r) p_k(g | r), the factors being grey pixels: with the sum over one channel, this is
    the sum over three at depths where they are too many to list.
    """
    numbers, bins, blue = random_numbers(3, 2, WIDE), Bins.of_bits(bits), targets_of(bits)
    red, green = blue[len(blue) // 3].item(), blue[-1].item()
    values = torch.stack([torch.full_like(blue, red), torch.full_like(blue, green), blue])[None, :, None]
    summed = numbers.mixture(len(blue), bins).log_prob(values).exp().sum().item()
    expected = 0.0
    for k, weight in enumerate(np.exp(numbers.logits) / np.exp(numbers.logits).sum()):
        green_mean = numbers.means[1, k] + np.tanh(numbers.coefficients[0, k]) * red
        for channel, mean, value in ((0, numbers.means[0, k], red), (1, green_mean, green)):
            one = Numbers(np.zeros(1), np.full((1, 1), mean), numbers.log_scales[channel : channel + 1, k : k + 1])
            weight *= one.mixture(1, bins).log_prob(torch.full((1, 1, 1, 1), value, dtype=torch.float64)).exp().item()
        expected += weight
    assert summed == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("bits", ALL_BITS)
def test_a_value_has_the_mass_between_the_middles_to_its_neighbours(bits: int) -> None:
    """Against scipy's logistic: edges halfway between targets, the outermost bins open."""
    numbers, targets = random_numbers(1, 1, WIDE), targets_of(bits).numpy()
    edges = np.concatenate([[-np.inf], (targets[1:] + targets[:-1]) / 2, [np.inf]])
    cumulative = expit((edges - numbers.means[0, 0]) * np.exp(-numbers.log_scales[0, 0]))
    image = torch.from_numpy(targets).view(1, 1, 1, -1)
    ours = numbers.mixture(len(targets), Bins.of_bits(bits)).log_prob(image).exp().flatten()
    assert np.allclose(ours.numpy(), np.diff(cumulative), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("mean", "log_scale", "mass"),
    [
        pytest.param(0.0, -3.0, 1.0282, id="in the middle: bins 2/31 wide on a spacing of 16/255 overlap"),
        pytest.param(0.9, -2.0, 0.6556, id="bright: no bin is open above 0.977"),
        pytest.param(1.2, -3.0, 0.0115, id="brighter than white: nearly nothing is left"),
    ],
)
def test_the_published_5bit_masses_do_not_sum_to_one(mean: float, log_scale: float, mass: float) -> None:
    """The known exception: kept for published weights, and their 0.4232."""
    numbers = Numbers(np.zeros(1), np.full((1, 1), mean), np.full((1, 1), log_scale))
    assert total_mass(numbers, 5, Bins.published_5bit()) == pytest.approx(mass, abs=1e-4)


def test_the_density_approximation_loses_at_most_one_small_bin_a_side() -> None:
    """Bins of less mass than 1e-5 take the density at their centre, which in a logistic's convex tail is less than the
    mass: narrow mixtures sum to a little less than one, 1.5e-5 less at worst, and never to more.
    """
    sums = []
    for log_scale in np.linspace(-7, 0, 71):
        for mean in (0.0, 0.3 / 255, 1 / 255):
            numbers = Numbers(np.zeros(1), np.full((1, 1), mean), np.full((1, 1), log_scale))
            sums.append(total_mass(numbers, 8, Bins.of_bits(8)))
    assert max(sums) < 1 + 1e-12
    assert 1 - 2e-5 < min(sums) < 1 - 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_numbers_have_finite_log_probabilities_and_gradients(dtype: torch.dtype) -> None:
    extreme = Numbers(np.array([-1e4, 1e4]), np.array([[-1e3, 50.0]]), np.array([[-100.0, 60.0]]))
    parameters = extreme.parameters(256, dtype).requires_grad_()
    log_prob = LogisticMixture(parameters, 1, Bins.of_bits(8)).log_prob(targets_of(8).float().view(1, 1, 1, -1))
    log_prob.sum().backward()
    assert log_prob.dtype == torch.float32
    assert log_prob.isfinite().all()
    assert parameters.grad.isfinite().all()


def published_sampler(numbers: Numbers, draws: int, rng: np.random.Generator, bound: float = 1.0) -> np.ndarray:
    """The published sampler in numpy, from its description, (3, N): a component by Gumbel-max, logistic noise from
    uniforms in (1e-5, 1 − 1e-5), then the channels in order, each clamped to ±`bound` before the next reads it.
    """
    gumbel = -np.log(-np.log(rng.uniform(1e-5, 1 - 1e-5, (draws, len(numbers.logits)))))
    chosen = (numbers.logits + gumbel).argmax(1)
    uniform = rng.uniform(1e-5, 1 - 1e-5, (3, draws))
    scales = np.exp(np.maximum(numbers.log_scales[:, chosen], -7))
    red, green, blue = numbers.means[:, chosen] + scales * (np.log(uniform) - np.log(1 - uniform))
    red_green, red_blue, green_blue = np.tanh(numbers.coefficients[:, chosen])
    red = np.clip(red, -bound, bound)
    green = np.clip(green + red_green * red, -bound, bound)
    return np.stack([red, green, np.clip(blue + red_blue * red + green_blue * green, -bound, bound)])


def uniforms(components: int, channels: int, pixels: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    component, position = (
        torch.rand(1, size, 1, pixels, generator=generator, dtype=torch.float64) for size in (components, channels)
    )
    return component, position


@pytest.fixture(scope="module", params=[(-2.5, -1.5), (-1.0, 0.0)], ids=["narrow", "wide, often clamped"])
def our_and_published_draws(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    """40,000 pixels of each sampler: (3, N)."""
    numbers, draws = random_numbers(3, 3, request.param, seed=1), 40_000
    ours = numbers.mixture(draws).sample(uniforms(3, 3, draws))[0, :, 0].numpy()
    return ours, published_sampler(numbers, draws, np.random.default_rng(2))


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_each_channel_is_distributed_as_the_published_samplers(
    our_and_published_draws: tuple[np.ndarray, np.ndarray], channel: int
) -> None:
    ours, published = our_and_published_draws
    assert ks_2samp(ours[channel], published[channel]).pvalue > 1e-3


def test_channels_depend_on_each_other_as_in_the_published_sampler(
    our_and_published_draws: tuple[np.ndarray, np.ndarray],
) -> None:
    """Means and second moments, cross-channel ones among them, within five standard errors of their difference."""
    ours, published = our_and_published_draws
    for left, right in [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]:
        a, b = ours[left] * ours[right], published[left] * published[right]
        assert abs(a.mean() - b.mean()) < 5 * np.sqrt(a.var() / a.size + b.var() / b.size), (left, right)


def test_clamping_does_happen_in_the_comparison_above(our_and_published_draws: tuple[np.ndarray, np.ndarray]) -> None:
    ours, published = our_and_published_draws
    assert np.abs(ours).max() <= 1
    assert np.mean(np.abs(ours) == 1) == pytest.approx(np.mean(np.abs(published) == 1), abs=0.01)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_samples_expectation_has_the_gradient_of_its_finite_differences(channels: int) -> None:
    """One component and common random numbers: f(x̂) averaged over 500 draws, f with products across channels."""
    numbers, draws = random_numbers(channels, 1, (-1.5, -0.5)), 500
    noise = uniforms(1, channels, draws)

    def expectation(parameters: Tensor) -> Tensor:
        image = LogisticMixture(parameters.expand(-1, -1, 1, draws), channels, Bins.of_bits(8)).sample(noise)
        return (image.square().sum(1) + image.prod(1)).mean()

    assert torch.autograd.gradcheck(expectation, numbers.parameters(1).requires_grad_(), eps=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_chosen_component_is_taken_exactly(dtype: torch.dtype) -> None:
    """At a logistic's middle the sample is one of the means, to the last bit, also where gradients are on."""
    numbers = random_numbers(1, 4, WIDE)
    parameters = numbers.parameters(5000, dtype).requires_grad_()
    noise = (uniforms(4, 1, 5000)[0].to(dtype), torch.full((1, 1, 1, 5000), 0.5, dtype=dtype))
    sample = LogisticMixture(parameters, 1, Bins.of_bits(8)).sample(noise)
    means = torch.tensor(numbers.means[0], dtype=dtype)
    assert torch.equal(sample.detach().unique(), means.unique())


def test_components_are_chosen_with_their_probabilities() -> None:
    numbers, draws = replace(random_numbers(1, 4, WIDE), means=np.array([[-0.75, -0.25, 0.25, 0.75]])), 40_000
    middle = torch.full((1, 1, 1, draws), 0.5, dtype=torch.float64)
    sample = numbers.mixture(draws).sample((uniforms(4, 1, draws)[0], middle)).flatten()
    weights = np.exp(numbers.logits) / np.exp(numbers.logits).sum()
    for mean, weight in zip(numbers.means[0], weights, strict=True):
        share = (sample == mean).double().mean().item()
        assert abs(share - weight) < 5 * np.sqrt(weight * (1 - weight) / draws)


def test_the_choice_has_the_gradient_of_the_softmax_over_the_same_perturbed_logits() -> None:
    """Straight-through at temperature 1: d x̂/d logits is that of Σ_k softmax_k(logits + Gumbel)·m_k."""
    numbers = random_numbers(1, 4, WIDE)
    parameters = numbers.parameters(6).requires_grad_()
    noise = (uniforms(4, 1, 6)[0], torch.full((1, 1, 1, 6), 0.5, dtype=torch.float64))
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    (LogisticMixture(parameters, 1, Bins.of_bits(8)).sample(noise) * weights).sum().backward()
    leaf = parameters.detach()[:, :4].requires_grad_()
    soft = (leaf - (-noise[0].log()).log()).softmax(1)
    ((soft * torch.tensor(numbers.means[0]).view(1, 4, 1, 1)).sum(1) * weights).sum().backward()
    assert torch.allclose(parameters.grad[:, :4], leaf.grad, rtol=1e-12, atol=1e-15)


def test_uniforms_of_zero_and_one_give_finite_samples() -> None:
    parameters = random_numbers(3, 2, WIDE).parameters(2, torch.float32).requires_grad_()
    ends = torch.tensor([0.0, 1.0])
    noise = (ends.expand(1, 2, 1, 2), ends.expand(1, 3, 1, 2))
    sample = LogisticMixture(parameters, 3, Bins.of_bits(8)).sample(noise)
    sample.sum().backward()
    assert sample.isfinite().all()
    assert parameters.grad.isfinite().all()


def test_the_mean_image_is_the_mean_of_unclipped_samples() -> None:
    """In the interior, within five standard errors of 400,000 draws of the published sampler without its clamps."""
    numbers, draws = random_numbers(3, 3, (-3.0, -1.0), seed=3), 400_000
    unclipped = published_sampler(numbers, draws, np.random.default_rng(4), bound=np.inf)
    error = numbers.mixture(1).mean().flatten().numpy() - unclipped.mean(1)
    assert np.all(np.abs(error) < 5 * unclipped.std(1) / np.sqrt(draws)), error


def test_a_grey_mean_image_is_the_weighted_mean() -> None:
    numbers = random_numbers(1, 3, WIDE)
    weights = np.exp(numbers.logits) / np.exp(numbers.logits).sum()
    assert numbers.mixture(1).mean().item() == pytest.approx(weights @ numbers.means[0], rel=1e-12)


def test_the_mean_image_is_clamped_only_at_the_end() -> None:
    """Red's mean 1.5 reaches green as 1.5, not as 1: the mixture is unclipped."""
    coefficient = np.arctanh(0.5)
    numbers = Numbers(np.zeros(1), np.array([[1.5], [0.0], [-3.0]]), np.zeros((3, 1)), np.full((3, 1), coefficient))
    assert numbers.mixture(1).mean().flatten().tolist() == pytest.approx([1, 0.75, -1])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_mean_image_has_the_gradient_of_its_finite_differences(channels: int) -> None:
    parameters = random_numbers(channels, 3, WIDE).parameters(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: LogisticMixture(p, channels, Bins.of_bits(8)).mean(), parameters)


@pytest.mark.parametrize("channels", [1, 3])
def test_log_prob_has_the_gradient_of_its_finite_differences(channels: int) -> None:
    parameters = random_numbers(channels, 3, (-3.0, -1.0)).parameters(8).requires_grad_()
    image = targets_of(8)[torch.linspace(0, 255, 8).long()].view(1, 1, 1, 8).repeat(1, channels, 1, 1)
    assert torch.autograd.gradcheck(lambda p: LogisticMixture(p, channels, Bins.of_bits(8)).log_prob(image), parameters)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bins", [Bins.of_bits(8), Bins.of_bits(5), Bins.published_5bit()])
@pytest.mark.parametrize(("log_scale", "error"), [(WIDE, 1e-12), ((1.0, 3.0), 1e-12), ((-8.0, -5.0), 1e-8)])
def test_log_prob_has_the_gradient_of_autograd(
    channels: int, bins: Bins, log_scale: tuple[float, float], error: float
) -> None:
    """At every target, so also in open bins, in bins of little mass and at scales below the smallest.

    In narrow components autograd subtracts nearly equal numbers: against 50 digits it errs by 1e-9 there, and ours by
    3e-15.
    """
    parameters = random_numbers(channels, 4, log_scale).parameters(256).requires_grad_()
    image = (LEVELS / 127.5 - 1).view(1, 1, 1, 256).repeat(1, channels, 1, 1)
    weights = torch.linspace(0.5, 1.5, 256, dtype=torch.float64)
    values, gradients = [], []
    for plain in (False, True):  # an image that needs a gradient takes torch's own derivatives
        log_prob = LogisticMixture(parameters, channels, bins).log_prob(image.clone().requires_grad_(plain))
        values.append(log_prob)
        gradients.append(torch.autograd.grad((weights * log_prob).sum(), parameters)[0])
    assert torch.equal(*values)
    assert relative_error(*gradients) <= error


def test_a_sample_is_its_mean_plus_its_scale_times_the_logit() -> None:
    """One component, interior: x̂ = m + s·logit(u), to the last digits."""
    numbers = random_numbers(1, 1, (-4.0, -3.0))
    noise = uniforms(1, 1, 100)
    expected = numbers.means[0, 0] + np.exp(numbers.log_scales[0, 0]) * logit(noise[1].flatten().numpy())
    assert np.allclose(numbers.mixture(100).sample(noise).flatten().numpy(), expected, rtol=1e-12)
