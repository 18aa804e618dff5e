"""An evaluation as one JSON document: written by `evaluate`, read by `report`.

Not a number of it is rounded, and every one names its unit; docs/evaluation.md defines each quantity by its key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vdvae_lr.evaluation.quantities import Quantity

EVALUATION_NAME = "evaluation.json"
FORMAT = "vdvae_lr evaluation 1"


@dataclass(frozen=True)
class InputRates:
    """How the rate KL(q(z|x)‖p(z)) spreads over the inputs x: for whom the posterior is near the prior."""

    images: int
    unit: str
    quantiles: Mapping[str, float]
    """By probability written out ("0", "0.05", …, "1"): ε such that this share of the inputs has KL(x) ≤ ε."""
    group_quantiles: tuple[Mapping[str, float], ...]
    """The same for each latent group's own rate, top-down."""
    nearest_collapse: tuple[tuple[int, float], ...]
    """Inputs with the least KL(x), least first: the example's number, and its rate."""


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on one model."""

    name: str
    """What tables and the report call the model."""
    source: str
    """What it was loaded from, without secrets."""
    model: Mapping[str, Any]
    """The model's settings, by name."""
    dimensions: int
    """What nats/dim divides by."""
    resolutions: tuple[int, ...]
    """Of every latent group, top-down; each has `model["zdim"]` channels."""
    dataset: str
    split: str
    examples: int
    seed: int
    versions: Mapping[str, str]
    """vdvae_lr, torch, python, device."""
    quantities: tuple[Quantity, ...]
    inputs: InputRates | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """What is no number by group: spectra; plain JSON."""
    notes: tuple[str, ...] = ()
    """Sentences a reader must know to read the numbers right."""
