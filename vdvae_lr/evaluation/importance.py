"""What importance weights say of the likelihood and of the true posterior (Burda, Grosse and Salakhutdinov 2016).

With z ~ q(z|x) and w = p(x, z)/q(z|x): E[w] = p(x), E[log w] = the ELBO, and log p(x) − ELBO = KL(q(z|x)‖p(z|x)). The
log of an average of K weights lies below log p(x) in expectation, and approaches it as K grows. The same holds with
z_<l given: the average of p(x, z_≥l|z_<l)/q(z_≥l|z_<l, x) over draws of z_≥l is about p(x|z_<l). So

    T_l = E_q(z_<l|x)[log p(x|z_<l) − ELBO(x|z_<l)] = Σ_{m≥l} E_q(z_<m|x)[KL(q(z_m|z_<m, x)‖p(z_m|z_<m, x))]

by the chain rule, and T_l − T_{l+1} is what group l adds to the distance from the true posterior (T past the last is
0).

Estimators here take log-weights, or a function that draws them: any VAE's. Shapes: K draws, B images, L latent groups;
log-weights are in nats.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from vdvae_lr.errors import InputError

DrawLogWeights = Callable[[int], Tensor]
"""Number of a draw → its log-weights (B,); independent draws, each the same however many are asked for."""


def collect_log_weights(draw: DrawLogWeights, draws: int) -> Tensor:
    """Log-weights of so many draws, one after the other: (K, B) float64.

    Raises:
        InputError: fewer than one draw.
    """
    if draws < 1:
        raise InputError(f"importance weights of {draws} draws: ask for at least 1.")
    return torch.stack([draw(number).double() for number in range(draws)])


def log_mean_weight(log_weights: Tensor) -> Tensor:
    """log 1/K Σ_k w_k of log-weights (K, B): nats, (B,). Below log p(x) in expectation (eq. 8 and Theorem 1 there)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def effective_share(log_weights: Tensor) -> Tensor:
    """Effective sample size (Σ w)²/Σ w² of log-weights (K, B) as a share of K: (B,), from 1/K (one draw has all the
    weight) to 1.
    """
    normalised = log_weights.softmax(0)
    return 1 / (normalised.square().sum(0) * len(log_weights))


def posterior_gap_nats(log_weights: Tensor) -> Tensor:
    """log 1/K Σ w − 1/K Σ log w of log-weights (K, B): (B,), never negative (Jensen); an estimate from below, in
    expectation, of KL(q(z|x)‖p(z|x)).
    """
    return log_mean_weight(log_weights) - log_weights.mean(0)


def half_variance_nats(log_weights: Tensor) -> Tensor:
    """Half the variance of log-weights (K, B) over draws, with n − 1: (B,); NaN for one draw.

    KL(q(z|x)‖p(z|x)) to second order in the cumulants of log w, and exactly so where log w is Gaussian: then
    log E[w] = E[log w] + Var[log w]/2. A bound on nothing, but right on average for any K from 2 up.
    """
    if len(log_weights) < 2:
        return torch.full_like(log_weights[0], torch.nan)
    return log_weights.var(0) / 2


def collect_by_group(draw: Callable[[int, int], Tensor], groups: int, draws: int) -> list[Tensor]:
    """What each T_l is estimated from: L times log-weights (K, B).

    Args:
        draw: (l, number of a draw) → log-weights (B,) of z_≥l, with z_<l the same in every draw (l from 0).
        groups: L.
        draws: K, for each group.

    Raises:
        InputError: fewer than one draw.
    """
    return [collect_log_weights(partial(draw, group), draws) for group in range(groups)]


def by_group(from_here_on: Sequence[Tensor]) -> Tensor:
    """T_l − T_{l+1} from estimates of every T_l, (B,) each: (B, L), which sum to the first, the whole distance.

    Where each T_l is from below, a difference of two is a bound on nothing, and may be negative.
    """
    whole = torch.stack(list(from_here_on), dim=1)
    past = torch.cat([whole[:, 1:], torch.zeros_like(whole[:, :1])], dim=1)
    return whole - past
