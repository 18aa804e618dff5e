"""What an evaluation during a run writes to its log, under names with units, and as curves (docs/logged_numbers.md)."""

from collections.abc import Sequence

from vdvae_lr.evaluation.activity import ActiveUnits
from vdvae_lr.evaluation.bound import Bound
from vdvae_lr.evaluation.watch import WatchedLatents
from vdvae_lr.training.metrics import LoggedValue


def bound_record(bound: Bound) -> dict[str, LoggedValue]:
    """A held-out bound."""
    return {
        "examples": bound.examples,
        "negative_elbo_nats_per_dim": bound.negative_elbo,
        "negative_elbo_bits_per_dim": bound.negative_elbo_bits_per_dim,
        "negative_elbo_standard_error_nats_per_dim": bound.standard_error,
        "rate_nats_per_dim": bound.rate,
        "distortion_nats_per_dim": bound.distortion,
        "group_rates_nats_per_dim": list(bound.group_rates),
    }


def watch_record(watched: WatchedLatents) -> dict[str, LoggedValue]:
    """Measurements of the latents; null if there were too few images."""
    recovered, latents, channels = watched.recovered_information, watched.active_latents, watched.active_channels
    return {
        "watched_examples": watched.images,
        "recovered_information_nats_per_dim": recovered.value,
        "recovered_information_standard_error_nats_per_dim": recovered.standard_error,
        "active_latents_share": latents.share() if latents else None,
        "active_channels_share": channels.share() if channels else None,
        "group_active_latents_shares": _group_shares(latents) if latents else None,
        "group_active_channels_shares": _group_shares(channels) if channels else None,
    }


def _group_shares(found: ActiveUnits) -> list[float]:
    return [found.share([group]) for group in range(len(found.units))]


def group_rate_curves(kind: str, rates: Sequence[float], resolutions: Sequence[int]) -> dict[str, float]:
    """The rate of every latent group, by the name of its curve. Groups are counted from 0, the coarsest."""
    digits = max(2, len(str(len(rates) - 1)))  # TensorBoard sorts names as text
    pairs = enumerate(zip(rates, resolutions, strict=True))
    return {f"{kind}_group_rate/{group:0{digits}}_{side}x{side}": rate for group, (rate, side) in pairs}
