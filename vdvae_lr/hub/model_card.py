"""The model card: what the weights are, how they were made, what they score, what one may do with them."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vdvae_lr import __version__
from vdvae_lr.datasets.catalogue import terms_of
from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import first_line, without_secrets
from vdvae_lr.hub.published import PUBLISHED
from vdvae_lr.hub.run_record import RunRecord, start_of_run
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.vdvae.vae import VAEConfig

CARD_NAME = "README.md"
FIGURES = "figures"
PICTURE_NAME = "reconstructions_and_samples.png"
_BUNDLED = "fashion"
_TRAINING_SETTINGS = (
    *("hps", "restore_optimizer_path", "dataset", "iters", "global_batch", "precision", "seed"),
    *("beta", "alpha_T", "alpha_warmup_iters", "lr_form", "lr_target", "lr_image", "lr_latents", "lr_reduction"),
    *("lr", "lr_final_share", "wd", "adam_beta1", "adam_beta2", "warmup_iters", "ema_rate", "grad_clip"),
    "skip_threshold",
)
_LICENCE_LINE = re.compile(r"^- Weights: .*$", re.MULTILINE)
_SILENT_GROUP = 1e-4
"""nats/dim below which a group says next to nothing."""


@dataclass(frozen=True)
class Provenance:
    """What is known of some weights beside the model's settings.

    Attributes:
        dataset: they were trained on, by the name that `--dataset` takes; empty: unknown.
        record: of the run that made them; None: unknown.
        licence: of the weights, by the Hub's name for it; empty: none is stated.
        averaged: whether they are averaged over training (EMA); None: unknown.
        card: the model card that lay beside them, for where no run is known.
        published: the published model they are; empty: none.
    """

    dataset: str = ""
    record: RunRecord | None = None
    licence: str = ""
    averaged: bool | None = None
    published: str = ""
    card: Path | None = None


def model_card(model: LatentModel, provenance: Provenance, repository: str = "") -> ModelCard:
    """The card of `model`; `repository` is where it will lie, for the lines on loading; empty: nobody knows."""
    record = provenance.record
    sections = [
        f"# {_title(provenance, repository)}",
        _introduction(provenance),
        _loading(repository or "OWNER/NAME"),
        _training(record),
        _bound(model, record),
        _picture(record),
        _architecture(model),
        _terms(provenance),
    ]
    body = "\n\n".join(section for section in sections if section)
    return ModelCard(f"---\n{_metadata(provenance).to_yaml()}\n---\n\n{body}\n")


def licensed(card: bytes, licence: str, source: Path) -> bytes:
    """A card with another licence, in its metadata and in its line on the weights.

    Raises:
        InputError: its metadata cannot be read; `source` is named.
    """
    try:
        made = ModelCard(card.decode("utf-8-sig"))
    except Exception as error:  # of YAML, of text, or of the Hub's own classes
        raise InputError(
            f"model card {source} has metadata that cannot be read ({first_line(error)}); mend or remove it."
        ) from None
    made.data["license"] = licence
    made.text = _LICENCE_LINE.sub(lambda line: f"- Weights: {licence}.", made.text)
    return str(made).encode()


def _title(provenance: Provenance, repository: str) -> str:
    run = provenance.record.name if provenance.record is not None else ""
    return repository.rpartition("/")[2] or run or provenance.published or "VDVAE"


def _metadata(provenance: Provenance) -> ModelCardData:
    record, dataset = provenance.record, provenance.dataset or "unknown"
    results = []
    if record is not None and _is_measured(record) and record.bound_iteration == record.iteration:
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
        tags=["vdvae", "hierarchical-vae", "latent-reconstruction", "vdvae_lr"],
        model_name=record.name if record is not None and results else None,
        eval_results=results or None,
    )


def _introduction(provenance: Provenance) -> str:
    record = provenance.record
    alpha = record.settings.get("alpha_T", 0) if record is not None else None
    made = "fine-tuned" if record is not None and _start(record) else "trained"
    kind = {None: "A very deep VAE", 0: f"A very deep VAE {made} without Latent Reconstruction"}.get(
        alpha, f"A very deep VAE {made} with Latent Reconstruction over every latent group"
    )
    data = f", on {provenance.dataset}" if provenance.dataset else ""
    averaging = {
        None: "",
        True: " The weights are averaged over training (EMA).",
        False: " The weights are not averaged.",
    }
    return f"{kind}{data}.{averaging[provenance.averaged]} Written by vdvae_lr {__version__}."


def _loading(repository: str) -> str:
    return f"""## How to load it

```python
import torch, vdvae_lr

model = vdvae_lr.VDVAE.from_pretrained("{repository}")
with torch.inference_mode():
    passed = model.generate(4, temperature=0.9)
    image = passed.likelihood.mean()  # (4, C, H, W) in [-1, 1]
```

The same name works on the command line: `python train.py --pretrained {repository}`."""


def _training(record: RunRecord | None) -> str:
    if record is None:
        return ""
    settings = record.settings
    alpha, iterations = settings.get("alpha_T", 0.0), settings.get("iters", 0)
    length = settings.get("alpha_warmup_iters") or iterations
    reached = alpha * min(1.0, record.iteration / length) if length else alpha
    objective = (
        f"α rose linearly from 0 towards {reached:g} (α_T {alpha:g} over {length:,} iterations); form "
        f"`{settings.get('lr_form')}`, target `{settings.get('lr_target')}`, {settings.get('lr_image')} image, "
        f"{settings.get('lr_latents')} latents, reduced by {settings.get('lr_reduction')}."
        if alpha
        else "No Latent Reconstruction (α_T 0): the plain ELBO."
    )
    rows = [("started from", f"`{_shown(_start(record))}`" if _start(record) else "random weights")]
    given = [(name, settings[name]) for name in _TRAINING_SETTINGS if settings.get(name, "") != ""]
    rows += [(f"`{name}`", f"`{_shown(value)}`") for name, value in given]
    return (
        f"## How it was made\n\nIteration {record.iteration:,} of {iterations:,}. {objective}\n\n"
        f"{_table(('setting', 'value'), rows)}"
    )


def _start(record: RunRecord) -> str:
    """What the run's weights started from, as its command line said it; empty: random weights."""
    return start_of_run(record.settings)[0].name


def _shown(value: object) -> object:
    """A setting without the folders of the machine it was used on, and an address without its secrets."""
    if isinstance(value, str) and "://" in value:
        return without_secrets(value)
    folders = isinstance(value, str) and (value.startswith(("/", "~", ".")) or value.endswith((".toml", ".th")))
    return Path(str(value)).name if folders else value


def _is_measured(record: RunRecord) -> bool:
    """Whether its bound is a number; the log writes null for one that is not finite."""
    return record.bound.get("negative_elbo_bits_per_dim") is not None


def _bound(model: LatentModel, record: RunRecord | None) -> str:
    if record is None or not record.bound:
        return ""
    bound = record.bound
    if not _is_measured(record):
        return (
            f"## What it scores\n\nNothing: the bound at iteration {record.bound_iteration:,}, over "
            f"{bound['examples']:,} {record.split} images, is not finite."
        )
    error = bound.get("negative_elbo_standard_error_nats_per_dim")
    spread = f" ± {error:.4f} (standard error over images)" if error is not None else ""
    rows = [
        ("bound (−ELBO)", f"{bound['negative_elbo_nats_per_dim']:.4f} nats/dim{spread}"),
        ("bound (−ELBO)", f"{bound['negative_elbo_bits_per_dim']:.4f} bits/dim"),
        ("rate (KL)", f"{bound['rate_nats_per_dim']:.4f} nats/dim"),
        ("distortion", f"{bound['distortion_nats_per_dim']:.4f} nats/dim"),
    ]
    caution = ""
    if isinstance(model.config, VAEConfig) and model.config.likelihood == "published_5bit":
        caution = (
            "\n\nThe likelihood is the published 5-bit one, which does not sum to one: compare this bound only with "
            "others of the same likelihood."
        )
    return (
        f"## What it scores\n\n{bound['examples']:,} {record.split} images, each once, at iteration "
        f"{record.bound_iteration:,}; one sample of the posterior an image.\n\n{_table(('', ''), rows)}{caution}\n\n"
        f"{_group_rates(model, bound['group_rates_nats_per_dim'])}"
    )


def _group_rates(model: LatentModel, rates: list[float]) -> str:
    """The rate by resolution, from the coarsest."""
    resolutions = [shape[-1] for shape in model.latent_shapes]
    rows = []
    for resolution in dict.fromkeys(resolutions):
        here = [rate for rate, own in zip(rates, resolutions, strict=True) if own == resolution]
        silent = sum(rate < _SILENT_GROUP for rate in here)
        share = 100 * math.fsum(here) / math.fsum(rates) if any(rates) else 0.0
        size = f"{resolution}×{resolution}"
        rows.append((size, len(here), f"{math.fsum(here):.5f}", f"{share:.1f}", f"{max(here):.5f}", silent))
    silence = f"groups below {_SILENT_GROUP:g}"
    head = ("resolution", "latent groups", "KL, nats/dim", "share, %", "largest group", silence)
    return f"KL of the latent groups, by resolution:\n\n{_table(head, rows)}"


def _picture(record: RunRecord | None) -> str:
    if record is None or record.picture is None:
        return ""
    return (
        f"![Held-out images, reconstructions, and samples]({FIGURES}/{PICTURE_NAME})\n\n"
        "Held-out images, their reconstructions, and samples at falling temperatures."
    )


def _architecture(model: LatentModel) -> str:
    config = model.config
    parameters = sum(parameter.numel() for parameter in model.parameters())
    channels = " or ".join(str(each) for each in sorted({shape[0] for shape in model.latent_shapes}))
    colours = "grey" if config.image_channels == 1 else "colour"
    rows = [
        ("images", f"{config.image_size}×{config.image_size}, {colours}, {model.pixel_scale.bits} bits"),
        ("latent groups", f"{len(model.latent_shapes)}, each of {channels} channels"),
        ("parameters", f"{parameters:,}"),
        *model.facts(),
    ]
    return f"## The model\n\n{_table(('', ''), rows)}"


def _terms(provenance: Provenance) -> str:
    licence, record, dataset = provenance.licence, provenance.record, provenance.dataset
    lines = ["Code: MIT."]
    lines.append(f"Weights: {licence}." if licence else "Weights: whoever published this card states no licence.")
    if provenance.published:
        lines.append(
            f"They are OpenAI's published `{provenance.published}` weights: their code is MIT, their own terms are not "
            "stated."
        )
    start = _published_name(_start(record)) if record is not None else ""
    if record is not None and _start(record) == _BUNDLED:
        lines.append(f"They were fine-tuned from the `{_BUNDLED}` weights that come with vdvae_lr: MIT.")
    if start:
        lines.append(
            f"They were fine-tuned from OpenAI's published `{start}` weights: their code is MIT, their own terms are "
            "not stated."
        )
    if terms := terms_of(dataset):
        lines.append(f"Data: {terms}")
    return "## Terms\n\n" + "\n".join(f"- {line}" for line in lines)


def _published_name(start: str) -> str:
    """Of the published model that is called so, or whose file is; empty: of none."""
    known = {model.file_name(kind): name for name, model in PUBLISHED.items() for kind in ("model-ema", "model")}
    return start if start in PUBLISHED else known.get(Path(start).name, "")


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    head = tuple(head)
    lines: list[Iterable[object]] = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
