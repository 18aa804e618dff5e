"""A textbook training step and sampler of a VDVAE, as a baseline for ours: same mathematics, no optimisation.

Each network activates its own input. State and feature are concatenated before one convolution. Torch differentiates
the likelihood. Tensors are in NCHW order. AdamW and the averaging go parameter by parameter. The code uses the modules
of a `VDVAE` but none of its passes.

Shapes: B batch, C width, Z latent channels, H W resolution.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.logistic_mixture import Bins
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.model.vdvae.decoder import TopDownBlock
from vdvae_lr.model.vdvae.encoder import EncoderBlock
from vdvae_lr.model.vdvae.layers import Bottleneck, TwoInputBottleneck
from vdvae_lr.model.vdvae.layout import DecoderStage
from vdvae_lr.training.optim import OptimisationSettings


class PlainTraining:
    """An ELBO step of `model`. It changes the weights of `model`."""

    def __init__(self, model: VDVAE, settings: OptimisationSettings) -> None:
        self.model = model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.settings = settings
        self.parameters = list(model.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        betas = (settings.adam_beta1, settings.adam_beta2)
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.lr, betas=betas, weight_decay=settings.wd, foreach=False, fused=False
        )

    def __call__(self, pixels: Tensor) -> float:
        """Do one update with images (B, C, H, W) uint8; return the negative ELBO in nats/dim."""
        self.optimiser.zero_grad()
        loss = negative_elbo(self.model, pixels.contiguous().float())
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.grad_clip, foreach=False)
        if norm < self.settings.skip_threshold:
            self.optimiser.step()
            with torch.no_grad():
                for average, parameter in zip(self.average, self.parameters, strict=True):
                    average.mul_(self.settings.ema_rate).add_((1 - self.settings.ema_rate) * parameter)
        return loss.item()


def negative_elbo(model: VDVAE, levels: Tensor, noise: list[Tensor] | None = None) -> Tensor:
    """Rate plus distortion of images (B, C, H, W) in nats/dim. `noise`: (B, Z, H, W) for each group; None: drawn."""
    features = _encode(model, model.pixel_scale.input_from_levels(levels))
    states = {int(r): bias.repeat(len(levels), 1, 1, 1) for r, bias in model.decoder.start_states.items()}
    rate = torch.zeros(len(levels), device=levels.device)
    for index, (stage, block) in enumerate(zip(model.decoder.stages, model.decoder.blocks, strict=True)):
        assert isinstance(block, TopDownBlock)
        feature = features[stage.resolution]
        state = _entering_state(stage, states, torch.zeros_like(feature))
        draw = None if noise is None else noise[index]
        states[stage.resolution], kl = _top_down_block(block, state, feature, draw)
        rate = rate + kl.sum(dim=(1, 2, 3))
    target = model.pixel_scale.target_from_levels(levels)
    log_prob = _log_prob(_mixture_numbers(model, states), target, model.bins)
    return (rate - log_prob.sum(dim=(1, 2))).mean() / model.dimensions


@torch.no_grad()
def sampled_levels(model: VDVAE, count: int, noise: PassNoise | None = None) -> Tensor:
    """`count` images from the prior: (B, H, W, C) uint8 on the host. `noise` None: drawn."""
    device = model.device
    states = {int(r): bias.repeat(count, 1, 1, 1) for r, bias in model.decoder.start_states.items()}
    for index, (stage, block) in enumerate(zip(model.decoder.stages, model.decoder.blocks, strict=True)):
        assert isinstance(block, TopDownBlock)
        shape = (count, model.decoder.widths[stage.resolution], stage.resolution, stage.resolution)
        state = _entering_state(stage, states, torch.zeros(shape, dtype=model.weight.dtype, device=device))
        from_prior = _bottleneck(block.prior, state)
        mean, log_scale = from_prior[:, : 2 * block.latent_channels].chunk(2, dim=1)
        draw = torch.randn_like(mean) if noise is None or noise.prior is None else noise.prior[index]
        latent = mean + log_scale.exp() * draw
        state = state + from_prior[:, 2 * block.latent_channels :] + _convolved(latent, block.latent_projection)
        states[stage.resolution] = state + _bottleneck(block.residual, state)
    if noise is None or noise.image is None:
        uniforms = [torch.rand(count, *shape, device=device) for shape in model.image_noise_shapes]
    else:
        uniforms = list(noise.image)
    image = _drawn(_mixture_numbers(model, states), uniforms, model.config.image_channels)
    levels = model.pixel_scale.levels_from_target(image).round().clamp(0, 255)
    return levels.permute(0, 2, 3, 1).to(torch.uint8).cpu()


def _entering_state(stage: DecoderStage, states: dict[int, Tensor], zeros: Tensor) -> Tensor:
    state = states.get(stage.resolution, zeros)
    if stage.upsample_from is None:
        return state
    coarser = states[stage.upsample_from][:, : state.shape[1]]
    return state + F.interpolate(coarser, scale_factor=stage.resolution // stage.upsample_from)


def _mixture_numbers(model: VDVAE, states: dict[int, Tensor]) -> Tensor:
    final = states[model.config.image_size] * model.decoder.gain + model.decoder.bias
    return _convolved(final, model.mixture_output)


def _drawn(numbers: Tensor, uniforms: list[Tensor], channels: int) -> Tensor:
    """A draw from the mixture as in PixelCNN++: (B, C, H, W). Uniforms choose the component, then the position."""
    per_component = 10 if channels == 3 else 3
    logits, rest = numbers.tensor_split([numbers.shape[1] // per_component], dim=1)
    rest = rest.unflatten(1, (channels, -1, logits.shape[1]))  # (B, C, 2 or 3, K, H, W)
    which, position = (uniform.clamp(1e-5, 1 - 1e-5) for uniform in uniforms)
    chosen = F.one_hot((logits - (-which.log()).log()).argmax(1), logits.shape[1]).movedim(-1, 1)[:, None]
    means, log_scales = ((rest[:, :, part] * chosen).sum(2) for part in (0, 1))
    drawn = means + log_scales.clamp(min=-7).exp() * (position.log() - (1 - position).log())
    if channels == 1:
        return drawn.clamp(-1, 1)
    coefficients = (rest[:, :, 2].tanh() * chosen).sum(2)
    red = drawn[:, 0].clamp(-1, 1)
    green = (drawn[:, 1] + coefficients[:, 0] * red).clamp(-1, 1)
    blue = (drawn[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green).clamp(-1, 1)
    return torch.stack([red, green, blue], dim=1)


def _log_prob(numbers: Tensor, target: Tensor, bins: Bins) -> Tensor:
    """The discretised logistic mixture of PixelCNN++ (Salimans et al. 2017): (B, H, W)."""
    channels = target.shape[1]
    per_component = 10 if channels == 3 else 3
    logits, rest = numbers.tensor_split([numbers.shape[1] // per_component], dim=1)
    rest = rest.unflatten(1, (channels, -1, logits.shape[1]))  # (B, C, 2 or 3, K, H, W)
    means, log_scales = rest[:, :, 0], rest[:, :, 1].clamp(min=-7)
    if channels == 3:
        coefficients = rest[:, :, 2].tanh()
        red, green = target[:, :1], target[:, 1:2]
        of_green = means[:, 1] + coefficients[:, 0] * red
        of_blue = means[:, 2] + coefficients[:, 1] * red + coefficients[:, 2] * green
        means = torch.stack([means[:, 0], of_green, of_blue], dim=1)
    value = target[:, :, None].expand_as(means)
    upper = (value - means + bins.half_width) * (-log_scales).exp()
    lower = (value - means - bins.half_width) * (-log_scales).exp()
    middle = (value - means) * (-log_scales).exp()
    mass = upper.sigmoid() - lower.sigmoid()
    density = middle - log_scales - 2 * F.softplus(middle) + math.log(2 * bins.half_width)
    inside = torch.where(mass > 1e-5, mass.clamp(min=1e-12).log(), density)
    ends = torch.where(value > bins.highest_above, -F.softplus(lower), inside)
    ends = torch.where(value < bins.lowest_below, upper - F.softplus(upper), ends)
    return torch.logsumexp(ends.sum(1) + F.log_softmax(logits, dim=1), dim=1)


def _encode(model: VDVAE, image: Tensor) -> dict[int, Tensor]:
    current = _convolved(image, model.encoder.image_input)
    features = {current.shape[-1]: current}
    for stage, block in zip(model.encoder.stages, model.encoder.blocks, strict=True):
        assert isinstance(block, EncoderBlock)
        current = current + _bottleneck(block.bottleneck, current)
        if stage.pool > 1:
            current = F.avg_pool2d(current, stage.pool)
        missing = model.encoder.widths[stage.output_resolution] - current.shape[1]
        if missing:
            padding = current.new_zeros(len(current), missing, *current.shape[2:])
            current = torch.cat([current, padding], dim=1)
        features[current.shape[-1]] = current
    return features


def _top_down_block(block: TopDownBlock, state: Tensor, feature: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """The state after the block (B, C, H, W), and the KL divergence of its group (B, Z, H, W)."""
    posterior_mean, posterior_log_scale = _joined_bottleneck(block.posterior, state, feature).chunk(2, dim=1)
    from_prior = _bottleneck(block.prior, state)
    prior_mean, prior_log_scale = from_prior[:, : 2 * block.latent_channels].chunk(2, dim=1)
    noise = torch.randn_like(posterior_mean) if noise is None else noise
    latent = posterior_mean + posterior_log_scale.exp() * noise
    spread = posterior_log_scale.exp().square() + (posterior_mean - prior_mean).square()
    kl = -0.5 + prior_log_scale - posterior_log_scale + 0.5 * spread / prior_log_scale.exp().square()
    state = state + from_prior[:, 2 * block.latent_channels :] + _convolved(latent, block.latent_projection)
    return state + _bottleneck(block.residual, state), kl


def _bottleneck(network: Bottleneck, entering: Tensor) -> Tensor:
    hidden = _convolved(F.gelu(entering), network.reduce)
    for layer in (network.mix_1, network.mix_2, network.expand):
        hidden = _convolved(F.gelu(hidden), layer)
    return hidden


def _joined_bottleneck(network: TwoInputBottleneck, state: Tensor, feature: Tensor) -> Tensor:
    weight = torch.cat([network.reduce.weight, network.reduce_feature.weight], dim=1)
    hidden = F.conv2d(F.gelu(torch.cat([state, feature], dim=1)), weight, network.reduce.bias)
    for layer in (network.mix_1, network.mix_2, network.expand):
        hidden = _convolved(F.gelu(hidden), layer)
    return hidden


def _convolved(entering: Tensor, layer: nn.Conv2d) -> Tensor:
    return F.conv2d(entering, layer.weight, layer.bias, padding=layer.padding)  # type: ignore[arg-type]
