"""The facts of a model card: what the weights are, how they were made, what they score, and their terms.

`model_card.jinja` has the words.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from vdvae_lr import __version__
from vdvae_lr.datasets.catalogue import terms_of
from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import first_line, without_secrets
from vdvae_lr.hub.run_record import RunRecord, start_of_run
from vdvae_lr.hub.sources import bundled_models
from vdvae_lr.hub.vdvae.published import published_name
from vdvae_lr.hub.weight_folder import DEFAULT_CLASS
from vdvae_lr.model.latent_model import LatentModel

CARD_NAME = "README.md"
FIGURES = "figures"
PICTURE_NAME = "reconstructions_and_samples.png"
_TRAINING_SETTINGS = (
    *("hps", "restore_optimizer_path", "dataset", "iters", "global_batch", "precision", "seed"),
    *("beta", "beta_warmup_iters", "free_nats", "alpha_T", "alpha_warmup_iters", "alpha_end", "alpha_end_iters"),
    *("lr_form", "lr_target", "lr_image", "lr_latents", "lr_reduction", "lr_reading", "open_at_start"),
    *("lr", "lr_final_share", "wd", "adam_beta1", "adam_beta2", "warmup_iters", "ema_rate", "grad_clip"),
    "skip_threshold",
)
_LICENCE_LINE = re.compile(r"^- Weights: .*$", re.MULTILINE)
_SILENT_GROUP = 1e-4
"""nats/dim below which the posterior of a group says next to nothing."""


@dataclass(frozen=True)
class Comparison:
    """What an evaluation says of the weights, against others.

    Attributes:
        sentences: the verdict.
        rows: a table, below the names of its columns.
    """

    sentences: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Provenance:
    """What is known of some weights beside the model's settings.

    Attributes:
        dataset: the data they were trained on, by the name that `--dataset` takes; empty: unknown.
        record: what is known of the run that made them; None: unknown.
        licence: licence of the weights, by the Hub's name for it; empty: none is stated.
        averaged: whether they are averaged over training (EMA); None: unknown.
        card: the model card that lay beside them, for weights of which no run is known.
        published: the published model they are; empty: none.
        comparison: how they compare with others; None: unknown.
    """

    dataset: str = ""
    record: RunRecord | None = None
    licence: str = ""
    averaged: bool | None = None
    published: str = ""
    card: Path | None = None
    comparison: Comparison | None = None


def model_card(model: LatentModel, provenance: Provenance, repository: str = "") -> ModelCard:
    """The card of `model`; `repository` is where the card will lie, for the lines on loading (empty: unknown)."""
    record = provenance.record
    class_name = type(model).__name__
    own_class = class_name if class_name != DEFAULT_CLASS else ""
    measured = record is not None and record.is_measured
    start = start_of_run(record.settings)[0].name if record is not None else ""
    run_name = record.name if record is not None else ""
    templates = Environment(
        loader=PackageLoader("vdvae_lr", "hub"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["count"] = "{:,}".format
    content = templates.get_template("model_card.jinja").render(
        vars(provenance),
        metadata=_metadata(provenance, own_class).to_yaml(),
        title=repository.rpartition("/")[2] or run_name or provenance.published or class_name,
        own_class=own_class,
        repository=repository or "OWNER/NAME",
        start=start,
        published_start=published_name(start),
        bundled_start=start if start in bundled_models() else "",
        setting_rows=_setting_rows(record.settings, start) if record is not None else [],
        measured=measured,
        improper_likelihood=getattr(model.config, "likelihood", "") == "published_5bit",
        rate_rows=_rate_rows(model, record.bound["group_rates_nats_per_dim"]) if record and measured else [],
        picture=f"{FIGURES}/{PICTURE_NAME}",
        model_rows=_model_rows(model),
        terms=terms_of(provenance.dataset),
        version=__version__,
    )
    return ModelCard(content)


def licensed(card: bytes, licence: str, path: Path) -> bytes:
    """The card from the file `path` with another licence, in its metadata and in its line on the weights.

    Raises InputError if its metadata cannot be read.
    """
    try:
        made = ModelCard(card.decode("utf-8-sig"))
    except Exception as error:  # YAML, the text's encoding and the Hub's own classes raise different ones
        raise InputError(
            f"model card {path} has metadata that cannot be read ({first_line(error)}); mend or remove it."
        ) from None
    made.data["license"] = licence
    made.text = _LICENCE_LINE.sub(lambda line: f"- Weights: {licence}.", made.text)
    return str(made).encode()


def _metadata(provenance: Provenance, own_class: str) -> ModelCardData:
    record, dataset = provenance.record, provenance.dataset or "unknown"
    results = []
    if record is not None and record.is_measured and record.bound["iteration"] == record.iteration:
        results = [
            EvalResult(
                task_type="unconditional-image-generation",
                dataset_type=dataset,
                dataset_name=f"{dataset} ({record.bound['examples']:,} {record.split} images)",
                metric_type="bits_per_dim",
                metric_name="negative ELBO, bits/dim",
                metric_value=round(record.bound["negative_elbo_bits_per_dim"], 4),
            )
        ]
    return ModelCardData(
        library_name="vdvae_lr",
        license=provenance.licence or None,
        pipeline_tag="unconditional-image-generation",
        tags=[*(["vdvae", "hierarchical-vae"] if not own_class else []), "latent-reconstruction", "vdvae_lr"],
        model_name=record.name if record is not None and results else None,
        eval_results=results or None,
    )


def _setting_rows(settings: Any, start: str) -> list[tuple[str, str]]:
    """The settings that matter for what the weights are, after what the run started from."""
    given = [(name, settings[name]) for name in _TRAINING_SETTINGS if settings.get(name, "") != ""]
    rows = [("started from", f"`{_shown(start)}`" if start else "random weights")]
    return rows + [(f"`{name}`", f"`{_shown(value)}`") for name, value in given]


def _shown(value: object) -> object:
    """A setting without the folders of the machine it was used on, and an address without its secrets."""
    if isinstance(value, str) and "://" in value:
        return without_secrets(value)
    folders = isinstance(value, str) and (value.startswith(("/", "~", ".")) or value.endswith((".toml", ".th")))
    return Path(str(value)).name if folders else value


def _rate_rows(model: LatentModel, rates: list[float]) -> list[tuple[object, ...]]:
    """The rate by resolution, from the coarsest, below the names of the columns."""
    silence = f"groups below {_SILENT_GROUP:g}"
    rows: list[tuple[object, ...]] = [
        ("resolution", "latent groups", "KL, nats/dim", "share, %", "largest group", silence)
    ]
    for resolution in dict.fromkeys(model.resolutions):
        here = [rate for rate, own in zip(rates, model.resolutions, strict=True) if own == resolution]
        silent = sum(rate < _SILENT_GROUP for rate in here)
        share = 100 * math.fsum(here) / math.fsum(rates) if any(rates) else 0.0
        size = f"{resolution}×{resolution}"
        rows.append((size, len(here), f"{math.fsum(here):.5f}", f"{share:.1f}", f"{max(here):.5f}", silent))
    return rows


def _model_rows(model: LatentModel) -> list[tuple[str, str]]:
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    channels = " or ".join(str(each) for each in sorted({shape[0] for shape in model.latent_shapes}))
    colours = "grey" if config.image_channels == 1 else "colour"
    return [
        ("images", f"{config.image_size}×{config.image_size}, {colours}, {model.pixel_scale.bits} bits"),
        ("latent groups", f"{len(model.latent_shapes)}, each of {channels} channels"),
        ("parameters", f"{parameters:,}"),
        *model.facts(),
    ]
