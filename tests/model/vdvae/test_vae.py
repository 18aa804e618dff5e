"""The VDVAE as a whole: where latents come from, how it starts, and what must not change its numbers."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from call_counter import count_calls
from closeness import relative_error
from latent_groups import groups_of, output_of
from torch import Tensor, nn

from vdvae_lr.errors import InputError
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.objective import ObjectiveSettings
from vdvae_lr.model.latent_model import FromPosterior, FromPrior, Given, LatentPass, LatentSource
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.model.vdvae.layout import parse_encoder
from vdvae_lr.model.vdvae.vae import VAEConfig
from vdvae_lr.training.step import batch_terms

BATCH = 2
EXACT = 1e-12  # relative, float64


def posterior_sources(noise: PassNoise) -> list[LatentSource]:
    return [FromPosterior(draw) for draw in noise.posterior]


def prior_sources(noise: PassNoise) -> list[LatentSource]:
    assert noise.prior is not None
    return [FromPrior(draw) for draw in noise.prior]


def given_sources(passed: LatentPass) -> list[LatentSource]:
    return [Given(group.latent) for group in groups_of(passed)]


def assert_same_pass(actual: LatentPass, expected: LatentPass) -> None:
    """Equal outputs, latents and priors, and equal posteriors where both have them."""
    pairs = [(output_of(actual), output_of(expected))]
    for ours, theirs in zip(groups_of(actual), groups_of(expected), strict=True):
        pairs += [(ours.latent, theirs.latent), (ours.prior.mean, theirs.prior.mean)]
        pairs.append((ours.prior.log_scale, theirs.prior.log_scale))
        if ours.posterior and theirs.posterior:
            pairs.append((ours.posterior.mean, theirs.posterior.mean))
            pairs.append((ours.posterior.log_scale, theirs.posterior.log_scale))
    assert max(relative_error(a, b) for a, b in pairs) <= EXACT


# ---- where latents come from


def test_infer_and_generate_are_the_pure_passes(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise
) -> None:
    features = small_model.encode(small_levels)
    inferred = small_model.top_down(posterior_sources(small_noise), BATCH, features)
    assert_same_pass(small_model.infer(small_levels, small_noise.posterior), inferred)
    generated = small_model.top_down(prior_sources(small_noise), BATCH)
    assert_same_pass(small_model.generate(BATCH, small_noise.prior), generated)


def test_giving_the_latents_of_a_pass_repeats_it(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise
) -> None:
    inferred = small_model.infer(small_levels, small_noise.posterior)
    repeated = small_model.top_down(given_sources(inferred), BATCH, small_model.encode(small_levels))
    assert groups_of(repeated)[0].posterior is not None
    assert_same_pass(repeated, inferred)
    assert_same_pass(small_model.top_down(given_sources(inferred), BATCH), inferred)


@pytest.mark.parametrize("group", range(5))
@pytest.mark.parametrize("pure", ["posterior", "prior"])
def test_one_given_latent_among_drawn_ones_repeats_the_pass(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise, group: int, pure: str
) -> None:
    """With the value that would have been drawn; features are there in both, and change nothing from the prior."""
    sources = (posterior_sources if pure == "posterior" else prior_sources)(small_noise)
    features = small_model.encode(small_levels)
    expected = small_model.top_down(sources, BATCH, features)
    sources[group] = Given(expected.latents[group])
    assert_same_pass(small_model.top_down(sources, BATCH, features), expected)


@pytest.mark.parametrize("switch", range(1, 5))
def test_posterior_first_and_prior_after_is_both_in_one(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise, switch: int
) -> None:
    """Before the switch the posterior pass; from it on what the prior makes of those latents."""
    mixed = [*posterior_sources(small_noise)[:switch], *prior_sources(small_noise)[switch:]]
    passed = small_model.top_down(mixed, BATCH, small_model.encode(small_levels))
    inferred = small_model.infer(small_levels, small_noise.posterior)
    for ours, theirs in zip(groups_of(passed)[:switch], groups_of(inferred)[:switch], strict=True):
        assert relative_error(ours.latent, theirs.latent) <= EXACT
    continued = [*given_sources(inferred)[:switch], *prior_sources(small_noise)[switch:]]
    assert_same_pass(small_model.top_down(continued, BATCH), passed)


def test_a_pass_from_the_prior_with_features_also_has_posteriors(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise
) -> None:
    """q(z_l | z_<l, x) at the prior's latents; without features there is none."""
    features = small_model.encode(small_levels)
    passed = small_model.top_down(prior_sources(small_noise), BATCH, features, keep_contexts=True)
    for group, again in zip(groups_of(passed), small_model.posteriors(passed, features), strict=True):
        assert group.posterior is not None
        assert relative_error(group.posterior.mean, again.mean) <= EXACT
    assert groups_of(small_model.generate(BATCH, small_noise.prior))[0].posterior is None


def test_one_temperature_for_all_groups_is_that_temperature_for_each(
    small_model: VDVAE, small_noise: PassNoise
) -> None:
    everywhere = small_model.generate(BATCH, small_noise.prior, temperature=0.7)
    assert_same_pass(small_model.generate(BATCH, small_noise.prior, temperature=[0.7] * 5), everywhere)


def test_a_groups_temperature_acts_on_that_group(small_model: VDVAE, small_noise: PassNoise) -> None:
    """Groups above it stay; its own latent's distance from the prior's mean is scaled."""
    plain = small_model.generate(BATCH, small_noise.prior)
    cooled = small_model.generate(BATCH, small_noise.prior, temperature=[1, 1, 0.25, 1, 1])
    for ours, theirs in zip(groups_of(cooled)[:2], groups_of(plain)[:2], strict=True):
        assert torch.equal(ours.latent, theirs.latent)
    ours, theirs = groups_of(cooled)[2], groups_of(plain)[2]
    assert relative_error(ours.latent - ours.prior.mean, 0.25 * (theirs.latent - theirs.prior.mean)) <= EXACT
    assert relative_error(groups_of(cooled)[3].prior.mean, groups_of(plain)[3].prior.mean) > 1e-6


def test_temperature_zero_takes_the_priors_means(small_model: VDVAE, small_noise: PassNoise) -> None:
    passed = small_model.generate(BATCH, small_noise.prior, temperature=0.0)
    assert all(torch.equal(group.latent, group.prior.mean) for group in groups_of(passed))


def test_noise_is_drawn_from_torchs_generator_where_none_is_given(small_model: VDVAE) -> None:
    torch.manual_seed(3)
    first, second = small_model.generate(BATCH), small_model.generate(BATCH)
    torch.manual_seed(3)
    assert_same_pass(small_model.generate(BATCH), first)
    assert relative_error(output_of(second), output_of(first)) > 1e-3


def test_a_wrong_number_of_sources_or_temperatures_is_an_error(small_model: VDVAE, small_noise: PassNoise) -> None:
    with pytest.raises(ValueError, match="zip"):
        small_model.top_down(prior_sources(small_noise)[:4], BATCH)
    with pytest.raises(ValueError, match="zip"):
        small_model.generate(BATCH, small_noise.prior, temperature=[1.0] * 4)


def test_a_posterior_without_features_is_an_error(small_model: VDVAE, small_noise: PassNoise) -> None:
    with pytest.raises(ValueError, match="needs the image's features"):
        small_model.top_down(posterior_sources(small_noise), BATCH)


def test_reencoding_without_kept_states_is_an_error(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise
) -> None:
    passed = small_model.infer(small_levels, small_noise.posterior)
    with pytest.raises(ValueError, match="keep_contexts=True"):
        small_model.reencode(passed, small_levels)


# ---- channels, precision of layout, checkpointing


def total_and_gradients(
    model: VDVAE, levels: Tensor, noise: PassNoise, settings: ObjectiveSettings
) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    total = batch_terms(model, settings, levels, noise, 1.0).total
    total.backward()
    return total.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_models_train_every_parameter(small_model: VDVAE, channels: int) -> None:
    """Forward and backward from the published initialisation; no parameter is left out, no number is broken."""
    torch.manual_seed(0)
    config = replace(small_model.config, image_channels=channels)
    model = VDVAE(config)
    noise = PassNoise(model, BATCH, torch.device("cpu"))
    noise.draw(1)
    levels = torch.randint(0, 256, (BATCH, channels, 8, 8)).float()
    total, gradients = total_and_gradients(model, levels, noise, ObjectiveSettings())
    assert total.isfinite()
    assert set(gradients) == {name for name, _ in model.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in gradients.values())


ELBO = ObjectiveSettings(alpha_T=0)
SETTINGS = [
    pytest.param(ELBO, id="ELBO"),
    pytest.param(ObjectiveSettings(), id="LR, posterior latents"),
    pytest.param(ObjectiveSettings(lr_latents="prior", lr_image="mean", lr_target="live"), id="LR, prior latents"),
]


@pytest.mark.parametrize("lowest", [1, 8])
@pytest.mark.parametrize("settings", SETTINGS)
def test_activation_checkpointing_changes_no_number(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise, settings: ObjectiveSettings, lowest: int
) -> None:
    total, gradients = total_and_gradients(small_model, small_levels, small_noise, settings)
    small_model.recompute_activations(lowest)
    again, recomputed = total_and_gradients(small_model, small_levels, small_noise, settings)
    assert torch.equal(total, again)
    assert set(gradients) == set(recomputed)
    assert max(relative_error(recomputed[name], gradients[name]) for name in gradients) <= EXACT


def test_activation_checkpointing_repeats_noise_that_is_drawn_inside(small_model: VDVAE, small_levels: Tensor) -> None:
    def gradient() -> Tensor:
        small_model.zero_grad()
        torch.manual_seed(5)
        output_of(small_model.infer(small_levels)).square().mean().backward()
        return small_model.encoder.image_input.weight.grad.clone()

    expected = gradient()
    small_model.recompute_activations(1)
    assert relative_error(gradient(), expected) <= EXACT


@pytest.mark.parametrize("lowest", [1, 4, 8])
def test_activation_checkpointing_runs_the_blocks_of_high_resolutions_again(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise, lowest: int
) -> None:
    config = small_model.config
    stages = [*parse_encoder(config.enc_blocks, config.image_size), *small_model.decoder.stages]
    calls = [count_calls(block) for block in (*small_model.encoder.blocks, *small_model.decoder.blocks)]
    small_model.recompute_activations(lowest)
    total_and_gradients(small_model, small_levels, small_noise, ELBO)
    assert [counter.count for counter in calls] == [2 if stage.resolution >= lowest else 1 for stage in stages]


@pytest.mark.parametrize("settings", SETTINGS)
def test_channels_last_changes_no_number(
    small_model: VDVAE, small_levels: Tensor, small_noise: PassNoise, settings: ObjectiveSettings
) -> None:
    total, gradients = total_and_gradients(small_model, small_levels, small_noise, settings)
    small_model.to(memory_format=torch.channels_last)
    levels = small_levels.contiguous(memory_format=torch.channels_last)
    again, others = total_and_gradients(small_model, levels, small_noise, settings)
    assert relative_error(again, total) <= EXACT
    assert max(relative_error(others[name], gradients[name]) for name in gradients) <= 1e-10


# ---- initialisation

INITIAL = VAEConfig(
    image_size=8,
    enc_blocks="8x2,8d2,4x1,4d4,1x1",  # 6 blocks
    dec_blocks="1x1,4m1,4x1,8m4,8x4",  # 8 blocks
    width=64,
    zdim=16,
    num_mixtures=3,
)


@pytest.fixture(scope="module")
def fresh_model() -> VDVAE:
    torch.manual_seed(0)
    return VDVAE(INITIAL)


def convolutions(model: VDVAE) -> Iterator[tuple[str, nn.Conv2d]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d))


def initial_factor(name: str) -> float:
    """What multiplies torch's Conv2d default for the layer called `name`."""
    if name.endswith("prior.expand"):
        return 0.0
    if name.startswith("encoder.blocks") and name.endswith("expand"):
        return math.sqrt(1 / 6)
    if name.endswith(("residual.expand", "latent_projection")):
        return math.sqrt(1 / 8)
    if name.endswith(("posterior.reduce", "posterior.reduce_feature")):
        return math.sqrt(1 / 2)  # one layer over concat(state, feature), hence twice the fan-in
    return 1.0


def test_all_biases_and_starting_states_are_zero_and_the_gain_is_one(fresh_model: VDVAE) -> None:
    named = dict(fresh_model.named_parameters())
    zero = [name for name in named if name.endswith("bias") or "start_states" in name]
    assert len(zero) == 1 + 6 * 4 + 8 * 13 + 3 + 1 + 1  # image, encoder, decoder, states, final bias, mixture
    assert all(not named[name].any() for name in zero)
    assert (named["decoder.gain"] == 1).all()


def test_every_weight_starts_with_its_published_scale(fresh_model: VDVAE) -> None:
    """Torch's default is uniform within ±1/√fan-in; standard deviations over layers of one factor, within 3%."""
    scaled: dict[float, list[Tensor]] = {}
    for name, layer in convolutions(fresh_model):
        bound = 1 / math.sqrt(layer.weight[0].numel())
        assert layer.weight.abs().max() <= bound * initial_factor(name) * (1 + 1e-6), name
        scaled.setdefault(initial_factor(name), []).append(layer.weight.detach().flatten() / bound)
    assert len(scaled) == 5
    for factor, weights in scaled.items():
        assert torch.cat(weights).std() == pytest.approx(factor / math.sqrt(3), rel=0.03), factor


def test_starting_states_end_at_no_bias_above(fresh_model: VDVAE) -> None:
    assert list(fresh_model.decoder.start_states) == ["1", "4", "8"]
    assert list(VDVAE(replace(INITIAL, no_bias_above=4)).decoder.start_states) == ["1", "4"]


def test_a_fresh_prior_is_standard_normal(fresh_model: VDVAE) -> None:
    for group in groups_of(fresh_model.generate(BATCH)):
        assert not group.prior.mean.any()
        assert not group.prior.log_scale.any()


# ---- settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"image_channels": 2}, "image_channels is 2"),
        ({"bits": 0}, "bits is 0"),
        ({"bits": 9}, "bits is 9"),
        ({"likelihood": "published_5bit"}, "published_5bit goes with bits 5, not 8"),
        ({"image_size": 0}, "image_size is 0"),
        ({"width": 0}, "width is 0"),
        ({"zdim": 0}, "zdim is 0"),
        ({"num_mixtures": 0}, "num_mixtures is 0"),
        ({"input_scale": 0.0}, "input_scale is 0.0"),
        ({"input_scale": math.nan}, "input_scale is nan"),
        ({"image_size": 16}, "image_size is 16"),
        ({"enc_blocks": "8x1,8q2"}, "'8q2'"),
        ({"dec_blocks": "1x1,2m1"}, "resolution 2"),
        ({"custom_width_str": "4:63"}, "width 63 at resolution 4"),
        ({"width": 3, "custom_width_str": ""}, "leaves no channel of width 3"),
    ],
)
def test_settings_that_make_no_model_are_refused(changes: dict[str, object], named: str) -> None:
    with pytest.raises(InputError) as caught:
        replace(INITIAL, **changes)
    message = str(caught.value)
    assert named in message
    assert message.endswith(".")
    assert "\n" not in message


def test_five_bits_go_with_the_published_likelihood() -> None:
    assert VDVAE(replace(INITIAL, bits=5, likelihood="published_5bit")).pixel_scale.level_step == 8


def test_dimensions_count_the_numbers_of_an_image() -> None:
    assert (VDVAE(INITIAL).dimensions, VDVAE(replace(INITIAL, image_channels=1)).dimensions) == (192, 64)


# ---- names

LAYER = ["weight", "bias"]
BOTTLENECK = [f"{layer}.{kind}" for layer in ("reduce", "mix_1", "mix_2", "expand") for kind in LAYER]
DECODER_BLOCK = [
    *[f"prior.{name}" for name in BOTTLENECK],
    *[f"posterior.{name}" for name in BOTTLENECK],
    "posterior.reduce_feature.weight",
    *[f"latent_projection.{kind}" for kind in LAYER],
    *[f"residual.{name}" for name in BOTTLENECK],
]
STATE_DICT_KEYS = [
    *[f"encoder.image_input.{kind}" for kind in LAYER],
    *[f"encoder.blocks.{index}.bottleneck.{name}" for index in range(6) for name in BOTTLENECK],
    "decoder.gain",
    "decoder.bias",
    *[f"decoder.blocks.{index}.{name}" for index in range(8) for name in DECODER_BLOCK],
    *[f"decoder.start_states.{resolution}" for resolution in (1, 4, 8)],
    *[f"mixture_output.{kind}" for kind in LAYER],
]


def test_parameter_names_are_pinned(fresh_model: VDVAE) -> None:
    """Checkpoints and exported weights hold these names: a change of one breaks every file that was ever written."""
    assert sorted(fresh_model.state_dict()) == sorted(STATE_DICT_KEYS)
    assert sorted(name for name, _ in fresh_model.named_parameters()) == sorted(STATE_DICT_KEYS)
