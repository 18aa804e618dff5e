"""What a model card says first: the evaluation's verdict on a run, against other models."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vdvae_lr.cli.shared.loaded_models import LoadingSettings
from vdvae_lr.errors import InputError
from vdvae_lr.files.run_folder import CHECKPOINTS
from vdvae_lr.hub.model_card import Comparison
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.report.content import Cell
from vdvae_lr.report.reported import read_reported
from vdvae_lr.report.verdict import verdict


@dataclass(frozen=True, kw_only=True)
class CardSettings(LoadingSettings):
    """How weights are loaded, and with what their model card compares them."""

    against: tuple[str, ...] = ()
    """Evaluated runs, or evaluations, that the model card compares this run with: [NAME=]FOLDER, such as that of the
    weights it started from, and that of a run without LR. Empty: the card has no comparison."""

    def compare(self, model: PretrainedModel, source: str) -> None:
        """Put the comparison, if there is one, into what is known of the model that was loaded from `source`.

        Raises:
            InputError: `source` is no run; it or another model has no evaluation, or one of another checkpoint; or the
                evaluations are not alike.
        """
        record = model.provenance.record
        if not self.against:
            if record is not None and record.settings.get("alpha_T"):
                print("The card does not say what LR changed; name evaluated runs or evaluations with --against.")
            return
        if record is None:
            raise InputError(f"{source} is no training run, and the card compares only runs; leave --against out.")
        folder = Path(source)
        run = folder.parent.parent if folder.resolve().parent.name == CHECKPOINTS else folder
        first, *_, own = models = read_reported([*self.against, str(run)])
        for each in models:
            if each.evaluation is None:
                raise InputError(f"{each.folder} has no evaluation; run `vdvae-lr evaluate {each.folder}` first.")
        if own.evaluation is not None and own.evaluation.iteration != record.iteration:
            raise InputError(
                f"the evaluation of {run} is not of the checkpoint of iteration {record.iteration:,}; run "
                f"`vdvae-lr evaluate {source}` again."
            )
        found = verdict(models)
        if found is None or not found.compares:
            raise InputError(
                f"the evaluations of {run} and {first.folder} are not alike, so nothing can be compared; evaluate "
                "both on the same images with the same settings."
            )
        rows = [found.chief.head, *found.chief.rows]
        comparison = Comparison(found.sentences, [_texts(row) for row in rows])
        model.provenance = dataclasses.replace(model.provenance, comparison=comparison)


def _texts(row: Sequence[str | Cell]) -> list[str]:
    """A row's cells as Markdown."""
    return [_text(cell) if isinstance(cell, Cell) else cell for cell in row]


def _text(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.tag == "strong" else cell.text
    return f"{text} ({cell.small})" if cell.small else text
