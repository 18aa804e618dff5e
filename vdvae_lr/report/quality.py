"""FID, KID, precision and recall of the models' samples and reconstructions, and whether they can be compared."""

from collections.abc import Sequence

from vdvae_lr.evaluation.document import Evaluation
from vdvae_lr.report.comparison_table import QUALITY_CAPTION, quality_rows
from vdvae_lr.report.content import MISSING, Section, Table
from vdvae_lr.report.reported import Reported


def section(models: Sequence[Reported]) -> Section:
    """A table with a column for each model that `vdvae-lr quality` has measured."""
    measured = {model: model.quality for model in models if model.quality is not None}
    if not measured:
        return Section()
    facts = {model: _measured_with(each) for model, each in measured.items()}
    names = list(next(iter(facts.values())))
    rows = [[name, *(each[name] for each in facts.values())] for name in names]
    rows += [[title, *(cell or MISSING for cell in cells)] for title, cells in quality_rows(list(measured.values()))]
    differing = [name for name in names if len({each[name] for each in facts.values()}) > 1]
    warning = f"Do not compare the models: they differ in {', '.join(differing)}." if differing else ""
    table = Table("Quality of pictures", ["", *(model.label for model in measured)], rows)
    return Section(list(measured), table=table, note=f"{QUALITY_CAPTION} {warning}".strip())


def _measured_with(evaluation: Evaluation) -> dict[str, str]:
    """What must be the same for numbers to be compared, by its name for people."""
    extractor = evaluation.details.get("extractor", {})
    digest = str(extractor.get("sha256", ""))[:8] if isinstance(extractor, dict) else ""
    return {
        "images": f"{evaluation.dataset}, {evaluation.split} split, {evaluation.examples:,}",
        "samples": str(evaluation.settings.get("samples", MISSING)),
        "what a sample shows": str(evaluation.settings.get("image", MISSING)),
        "seed": str(evaluation.seed),
        "extractor": digest or MISSING,
    }
