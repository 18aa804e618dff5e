"""The flat buffer is the model: same numbers, same strides, one address."""

import pytest
import torch
from latent_groups import output_of

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.training.weights import FlatWeights


def test_model_computes_the_same_from_the_buffer(small_model: VDVAE, small_levels: torch.Tensor) -> None:
    with torch.no_grad():
        noise = [torch.randn(2, *shape, dtype=torch.float64) for shape in small_model.latent_shapes]
        before = output_of(small_model.infer(small_levels, noise))
        FlatWeights(small_model)
        assert torch.equal(output_of(small_model.infer(small_levels, noise)), before)


def test_gradients_arrive_in_the_buffer_and_add_up(small_model: VDVAE, small_levels: torch.Tensor) -> None:
    weights = FlatWeights(small_model)
    noise = [torch.randn(2, *shape, dtype=torch.float64) for shape in small_model.latent_shapes]

    def loss() -> torch.Tensor:
        return output_of(small_model.infer(small_levels, noise)).square().mean()

    named = dict(small_model.named_parameters())
    found = torch.autograd.grad(loss(), list(named.values()), allow_unused=True)
    for _ in range(2):
        weights.backward(loss())
    views = weights.named(weights.gradients)
    for name, gradient in zip(named, found, strict=True):
        torch.testing.assert_close(views[name], torch.zeros_like(named[name]) if gradient is None else 2 * gradient)
    assert all(parameter.grad is None for parameter in named.values())


def test_an_update_of_the_buffer_moves_the_model(small_model: VDVAE) -> None:
    weights = FlatWeights(small_model)
    before = small_model.decoder.gain.detach().clone()
    with torch.no_grad():
        weights.values.add_(1)
    assert torch.equal(small_model.decoder.gain, before + 1)


def test_channels_last_strides_survive(small_model: VDVAE) -> None:
    small_model.to(memory_format=torch.channels_last)
    weights = FlatWeights(small_model)
    kernel = small_model.encoder.image_input.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert weights.named(weights.gradients)["encoder.image_input.weight"].stride() == kernel.stride()


def test_holding_other_weights_ends_also_after_an_error(small_model: VDVAE) -> None:
    weights = FlatWeights(small_model)
    own = weights.values.data.clone()
    with pytest.raises(RuntimeError, match="inside"), weights.holding(torch.zeros_like(own)):
        assert float(small_model.decoder.gain.detach().abs().sum()) == 0
        raise RuntimeError("inside")
    assert torch.equal(weights.values.data, own)


def test_other_names_are_refused(small_model: VDVAE) -> None:
    weights = FlatWeights(small_model)
    state = {name: tensor.clone() for name, tensor in weights.named(weights.values.data).items()}
    state["extra"] = torch.zeros(1)
    with pytest.raises(KeyError, match="extra"):
        weights.buffer_from(state)
