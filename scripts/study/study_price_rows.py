"""The rows of the study of what LR buys and costs (docs/study_price.md): names, and settings of train.py."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

ALPHAS = (0.03, 0.1, 0.3, 0.5, 0.8, 1.0)
BETAS = (0.95, 0.9, 0.8, 0.7, 0.5)
SEEDED = ("plain", "constant-0.3", "constant-1", "prior-0.3", "beta-0.8")
"""Rows for three seeds."""
LONGER = 4
_LONGER = ("plain", "constant-0.3", "prior-0.1", "beta-0.8")
"""Rows for four times the length. Not among them, because they stopped by themselves: α 1 (at iteration 2,550), α 0.5
(at 6,700), and latents from the prior with α 0.3 (at 4,400)."""


@dataclass(frozen=True)
class Row:
    """One way to train a model."""

    name: str
    words: str
    """Settings of train.py."""
    start: str = ""
    """The row whose weights it fine-tunes; empty: from scratch."""
    lengths: float = 1
    """Its length, in lengths of the preset."""
    seed: int = 0

    @property
    def title(self) -> str:
        """Its name with its length, for tables."""
        return f"{self.name}-times{self.lengths:g}" if self.lengths != 1 else self.name

    @property
    def label(self) -> str:
        """The same with its seed: the name of its run and its result."""
        return f"{self.title}-seed{self.seed}"


def _fine_tuned(prefix: str, start: str, words: Mapping[str, str]) -> list[Row]:
    return [Row(f"{prefix}-{name}", settings, start) for name, settings in words.items()]


_KINDS = {"constant": "", "live": "--lr_target live", "prior": "--lr_latents prior"}
_GRID = [
    Row("plain", "--alpha_T 0"),
    *(
        Row(f"{kind}-{alpha:g}", f"--alpha_T {alpha:g} {words}")
        for alpha in ALPHAS
        for kind, words in _KINDS.items()
        if (kind, alpha) != ("live", 1)  # it runs away, and stopped itself at iteration 1,750
    ),
]
_PAPER = [
    Row(f"paper-{kind}-1", f"--hps {{preset}},paper --alpha_T 1 --lr_reduction {kind}") for kind in ("mean", "sum")
]
_RIVALS = [
    *(Row(f"beta-{beta:g}", f"--alpha_T 0 --beta {beta:g}") for beta in BETAS),
    *(Row(f"free-{nats:g}", f"--alpha_T 0 --free_nats {nats:g}") for nats in (0.5, 1, 2)),
    Row("warmup-1000", "--alpha_T 0 --beta_warmup_iters 1000"),
    *(Row(f"constant-0.3-beta-{beta:g}", f"--alpha_T 0.3 --beta {beta:g}") for beta in (0.9, 1.1)),
    Row("constant-1-beta-1.3", "--alpha_T 1 --beta 1.3"),
]
_DOWN = [
    Row(f"constant-{alpha:g}-down", f"--alpha_T {alpha:g} --alpha_end 0 --alpha_end_iters 1000") for alpha in (0.3, 1)
]
_READINGS = ("4", "2", "random", "group")
_READING = [
    *(
        Row(f"constant-{alpha:g}-reading-{reading}", f"--alpha_T {alpha:g} --lr_reading {reading}")
        for alpha in (0.3, 1)
        for reading in _READINGS
    ),
    *(
        Row(f"live-0.3-reading-{reading}", f"--alpha_T 0.3 --lr_target live --lr_reading {reading}")
        for reading in _READINGS
    ),
]
_FROM_COLLAPSED = [
    Row("collapsed", "--alpha_T 0 --beta 4"),
    *_fine_tuned(
        "reopened",
        "collapsed",
        {
            "plain": "--alpha_T 0",
            "constant-0.1": "--alpha_T 0.1",
            "constant-0.3": "--alpha_T 0.3",
            "prior-0.1": "--alpha_T 0.1 --lr_latents prior",
            "constant-1-down": "--alpha_T 1 --alpha_end 0 --alpha_end_iters 1000",
        },
    ),
]
_FROM_SETTLED = _fine_tuned(
    "tuned",
    f"plain-times{LONGER}",
    {
        "plain": "--alpha_T 0",
        "constant-0.3": "--alpha_T 0.3",
        "constant-1": "--alpha_T 1",
        "prior-0.1": "--alpha_T 0.1 --lr_latents prior",
        "prior-0.3": "--alpha_T 0.3 --lr_latents prior",
        "beta-0.8": "--alpha_T 0 --beta 0.8",
        "constant-1-then-0.3": "--alpha_T 1 --alpha_end 0.3 --alpha_end_iters 1000",
    },
)
_BY_NAME = {row.name: row for row in _GRID + _RIVALS}

STAGES = {
    "grid": _GRID + _PAPER,
    "rivals": _RIVALS + _DOWN,
    "longer": [replace(_BY_NAME[name], lengths=LONGER) for name in _LONGER],
    "seeds": [replace(_BY_NAME[name], seed=seed) for seed in (1, 2) for name in SEEDED],
    "reading": _READING,
    "collapsed": _FROM_COLLAPSED,
    "tuned": _FROM_SETTLED,
}
"""Rows by stage, in the order in which they run."""
