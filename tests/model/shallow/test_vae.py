"""The VAEs of the shallow study: published sizes, refined posteriors, settings that no model can have."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.bound import bound_nats
from vdvae_lr.evaluation.fresh_reader import FreshReader
from vdvae_lr.evaluation.jacobian.bi_lipschitz import local_bi_lipschitz
from vdvae_lr.hub.pretrained import ShallowVAE
from vdvae_lr.losses.elbo import rate_nats
from vdvae_lr.losses.latent_reconstruction import latent_reconstruction
from vdvae_lr.model.shallow.vae import ShallowConfig
from vdvae_lr.pictures.images import samples

TINY = ShallowConfig(image_size=8, latents=3, encoder_channels="4,6", convex_units=8, convex_image_units=12)


def tiny(**changes: Any) -> ShallowVAE:
    torch.manual_seed(0)
    return ShallowVAE(replace(TINY, **changes)).eval()


def levels(count: int = 5, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, 8, 8), generator=generator).float()


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, 1_915_792),
        ({"decoder": "brenier"}, 3_776_658),
        ({"decoder": "brenier", "inverse_lipschitz": 0.2}, 3_776_658),
    ],
)
def test_sizes_are_the_papers(changes: dict[str, Any], count: int) -> None:
    model = ShallowVAE(ShallowConfig(**changes))
    assert parameters(model) == count
    assert parameters(model.encoder) == 822_112


def test_the_form_for_celeba_fits_its_images() -> None:
    with torch.device("meta"):
        model = ShallowVAE(ShallowConfig(64, 3, 64, "32,64,128,256"))
    assert parameters(model.encoder[-4]) == 256 * 4 * 4 * 128 + 128  # the image ends at 4×4
    assert model.decoder[0].weight.shape == (6144, 64)
    assert model.decoder[-1].weight.shape == (12_288, 12_288)


@pytest.mark.parametrize("decoder", ["plain", "brenier"])
@pytest.mark.parametrize("likelihood", ["gaussian", "optimal", "bernoulli"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pass_has_the_shapes_of_the_protocol(decoder: str, likelihood: str, channels: int) -> None:
    model = tiny(decoder=decoder, likelihood=likelihood, image_channels=channels)
    images = levels(channels=channels)
    passed = model.infer(images, keep_contexts=True)
    assert passed.latents[0].shape == (5, 3, 1, 1)
    assert passed.likelihood.mean().shape == images.shape
    assert latent_reconstruction(
        passed.latents, model.reencode(passed, passed.decoded("mean")), passed.priors
    ).shape == (5,)
    assert model.generate(4).likelihood.log_prob(model.pixel_scale.target_from_levels(images[:4])).isfinite().all()


def test_a_gaussian_names_its_own_sigma_on_the_target_scale() -> None:
    gaussian, optimal, bernoulli = (tiny(likelihood=name) for name in ("gaussian", "optimal", "bernoulli"))
    assert gaussian.pixel_sigma == pytest.approx(2 * 0.5**0.5)
    optimal.pixel_variance.fill_(0.01)
    assert optimal.pixel_sigma == pytest.approx(0.2)
    assert bernoulli.pixel_sigma is None


def test_pictures_of_samples_show_mean_images() -> None:
    model = tiny()
    found, means, drawn = (samples(model, 2, seed=3, image=image)[0] for image in (None, "mean", "sample"))
    assert (found == means).all()
    assert (found != drawn).any()


def test_an_image_does_not_depend_on_the_others_in_its_batch() -> None:
    model = tiny(refinement_steps=3)
    both, alone = model.encode(levels()), model.encode(levels()[2:3])
    torch.testing.assert_close(both.mean[2:3], alone.mean)
    torch.testing.assert_close(both.log_scale[2:3], alone.log_scale)


def cost(model: ShallowVAE, images: torch.Tensor) -> float:
    """−ELBO in nats, over so many draws that its error is small."""
    many = images.repeat(400, 1, 1, 1)
    noise = [torch.randn(len(many), 3, 1, 1, generator=torch.Generator().manual_seed(5))]
    rates, distortion = bound_nats(model.infer(many, noise), model.pixel_scale.target_from_levels(many))
    return (rates.sum(1) + distortion).mean().item()


def test_refinement_improves_the_bound() -> None:
    models = [tiny(refinement_steps=steps) for steps in (0, 5, 20)]
    with torch.inference_mode():
        none, some, many = (cost(model, levels()) for model in models)
    assert none > some > many


def test_refinement_is_the_same_with_and_without_a_graph() -> None:
    model = tiny(refinement_steps=4)
    with torch.inference_mode():
        expected = model.encode(levels())
    found = model.encode(levels())
    torch.testing.assert_close(found.mean, expected.mean.clone())
    torch.testing.assert_close(found.log_scale, expected.log_scale.clone())


def test_the_gradient_goes_through_the_refinement() -> None:
    """It is the limit of differences, for a weight of the encoder and for one of the decoder."""
    model = tiny(refinement_steps=3).double()
    images = levels().double()

    def rate() -> torch.Tensor:
        posterior = model.encode(images)
        return rate_nats([posterior], [model.infer(images).priors[0]]).sum()

    for weight in (model.encoder[-1].bias, model.decoder[-1].bias):
        (gradient,) = torch.autograd.grad(rate(), weight)
        values = []
        for step in (1e-4, -1e-4):
            with torch.no_grad():
                weight[0] += step
                values.append(rate().item())
                weight[0] -= step
        assert gradient[0].item() != 0
        assert gradient[0].item() == pytest.approx((values[0] - values[1]) / 2e-4, rel=1e-4)


def test_the_refined_posterior_has_the_gradient_of_its_image() -> None:
    """As Latent Reconstruction needs it: the image is read, and its refinement looks at it again."""
    model = tiny(refinement_steps=3).double()
    images = levels().double().requires_grad_()
    (gradient,) = torch.autograd.grad(model.encode(images).mean.sum(), images)
    values = []
    for step in (1e-3, -1e-3):
        moved = images.detach().clone()
        moved[0, 0, 3, 3] += step
        values.append(model.encode(moved).mean.sum().item())
    assert gradient[0, 0, 3, 3].item() == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-4)


def test_a_model_whose_weights_are_frozen_refines() -> None:
    model = tiny(refinement_steps=2)
    expected = model.encode(levels()).mean.detach()
    torch.testing.assert_close(model.requires_grad_(False).encode(levels()).mean, expected)


def test_refinement_leaves_the_decoders_statistics() -> None:
    model = tiny(refinement_steps=4).train()
    before = {name: tensor.clone() for name, tensor in model.named_buffers() if "decoder" in name and "mean" in name}
    model.encode(levels())
    after = dict(model.named_buffers())
    assert before
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert {norm.momentum for norm in model.modules() if isinstance(norm, torch.nn.BatchNorm1d)} == {0.1}


def test_a_fresh_reader_of_a_refined_model_refines_nothing() -> None:
    reader = FreshReader(tiny(refinement_steps=4), seed=0)
    assert reader.network.config == replace(TINY, refinement_steps=0)


@pytest.mark.parametrize("inverse_lipschitz", [0.5, 1.0])
@pytest.mark.parametrize("dense_dimensions", [1024, 0])
def test_the_decoders_geometry_is_that_of_autograd_and_keeps_the_promise(
    inverse_lipschitz: float, dense_dimensions: int
) -> None:
    """Also where the mean image leaves [−1, 1]: nothing is clamped."""
    model = tiny(decoder="brenier", inverse_lipschitz=inverse_lipschitz).double()
    with torch.no_grad():
        passed = model.decode([5 * torch.randn(2, 3, 1, 1, dtype=torch.float64)])
        passed = replace(passed, posteriors=(model.encode(levels(2).double()),))
    found = local_bi_lipschitz(model, passed, values=3, tolerance=1e-9, dense_dimensions=dense_dimensions)
    assert (passed.likelihood.mean().abs() > 1).any()
    for row, one in enumerate(found):
        latent = passed.latents[0][row].flatten()
        jacobian = 2 * torch.autograd.functional.jacobian(lambda z: model.decoder(z[None])[0], latent)
        torch.testing.assert_close(one.raw.together.values, torch.linalg.svdvals(jacobian))
        assert one.raw.together.kappa_min >= 2 * inverse_lipschitz**2  # the target scale is twice that of pixels
        assert one.clamped_share == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoder": "brenier", "convex_units": 2}, "must be 3 or more, as many as latents"),
        ({"image_channels": 2}, "image_channels is 2"),
        ({"inverse_lipschitz": -0.1, "decoder": "brenier"}, "inverse_lipschitz is -0.1"),
        ({"inverse_lipschitz": 0.1}, "needs an injective decoder"),
        ({"refinement_steps": -1}, "refinement_steps is -1"),
        ({"refinement_steps": 5, "likelihood": "optimal"}, "refinement_steps need the likelihood of one image"),
        ({"latents": 65, "decoder": "brenier"}, "no room for more than the image's 64"),
        ({"pixel_variance": 0.0}, "pixel_variance is 0.0"),
        ({"encoder_channels": "32,,64"}, "encoder_channels is '32,,64'"),
        ({"encoder_channels": "99999999"}, "encoder_channels"),
    ],
)
def test_settings_that_no_model_can_have(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(TINY, **changes)
