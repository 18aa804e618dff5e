"""The VDVAE as people meet it, `vdvae_lr.VDVAE`: the model, with weights in and out in one line.

model = vdvae_lr.VDVAE.from_pretrained("ffhq256")
model.save_pretrained("folder")
model.push_to_hub("somebody/lrvdvae-ffhq256")
"""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, ModelHubMixin

from vdvae_lr.errors import InputError
from vdvae_lr.hub.hub_client import LIBRARY, HubAccess, hub_errors, upload_timeout
from vdvae_lr.hub.model_card import CARD_NAME, FIGURES, PICTURE_NAME, Provenance, model_card
from vdvae_lr.hub.published import PUBLISHED
from vdvae_lr.hub.run_record import EMA_NAME, read_run_record
from vdvae_lr.hub.sources import WeightSettings, WeightSource, find_weights, read_state, settings_of
from vdvae_lr.hub.weight_folder import WEIGHTS_NAME, write_config, write_weights
from vdvae_lr.model.vae import VDVAE as PlainVDVAE
from vdvae_lr.model.vae import VAEConfig


class VDVAE(PlainVDVAE, ModelHubMixin, library_name=LIBRARY):
    """A very deep VAE that knows where its weights came from.

    Args:
        config: the model's settings.
        provenance: what is known of its weights; `dataset` and the model card come from it.
    """

    def __init__(self, config: VAEConfig, provenance: Provenance | None = None) -> None:
        super().__init__(config)
        self.provenance = provenance or Provenance()

    @property
    def dataset(self) -> str:
        """The data it was trained on, by the name that `--dataset` takes; empty: unknown."""
        return self.provenance.dataset

    @classmethod
    def from_pretrained(  # type: ignore[override] # the mixin's would ask the Hub for every name
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        ema: bool = True,
        config: VAEConfig | None = None,
        sources: WeightSettings | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """A model with its weights, in evaluation mode.

        Args:
            name_or_path: a bundled or published name, `lrvdvae-NAME`, a Hub repository, an https address, a file, a
                folder, or a run (`vdvae_lr.hub.sources` has the table).
            revision: branch, tag or commit of a Hub repository; None: as `sources` says.
            ema: the averaged weights, where there are also those before averaging (runs, published models).
            config: settings, for weights that come without them and are none of the published models.
            sources: where names are looked up.
            token, cache_dir, force_download, local_files_only: of a Hub repository, as huggingface_hub has them.

        Raises:
            InputError: no such weights, damaged ones, or settings neither given nor found.
        """
        sources = sources or WeightSettings()
        access = HubAccess(revision or sources.revision or None, token, cache_dir, force_download, local_files_only)
        source = find_weights(str(name_or_path), sources, ema=ema, access=access)
        chosen = settings_of(source, config)
        with torch.device("meta"):
            state = read_state(source, PlainVDVAE(chosen))
        model = cls(chosen, _provenance(source))
        model.load_state_dict(state)
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write model.safetensors, config.json and a model card; what the folder held stays until each is whole.

        Args:
            save_directory: made where needed.
            options: the mixin's (`push_to_hub`, `repo_id`, …).

        Raises:
            InputError: the disk refused, or the Hub did.
        """
        target = Path(save_directory)
        try:
            target.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=target, prefix=".saving-") as name:
                answer = super().save_pretrained(name, **({"repo_id": target.name} | options))
                if self._picture() is None:
                    (target / FIGURES / PICTURE_NAME).unlink(missing_ok=True)  # of weights that were here before
                for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
                    final = target / path.relative_to(name)
                    final.parent.mkdir(exist_ok=True)
                    path.replace(final)
        except OSError as error:
            raise InputError(
                f"{target} cannot be written ({error.strerror or error}); free space or choose another folder."
            ) from None
        return answer

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Save, and upload in one commit; the repository is made where needed.

        Args:
            repo_id: OWNER/NAME.
            options: the mixin's (`private`, `branch`, `commit_message`, `create_pr`, `token`, …).

        Returns:
            The commit's address.

        Raises:
            InputError: no login, no right to write there, or no connection.
        """
        card = {"repository": repo_id} | options.pop("model_card_kwargs", {})
        with hub_errors(repo_id, "the files", options.get("branch")), upload_timeout():
            address: str = super().push_to_hub(repo_id, model_card_kwargs=card, **options)
            return address

    def generate_model_card(self, *arguments: Any, **facts: Any) -> ModelCard:
        """The card of these weights, filled from the run that made them where it is known."""
        beside = self.provenance.card
        if self.provenance.record is None and beside is not None:
            return ModelCard.load(beside)  # what it says of data, making and terms is more than can be told without it
        return model_card(self, self.provenance, **facts)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_config(save_directory, self.config, self.dataset)
        write_weights(save_directory / WEIGHTS_NAME, self.state_dict())
        picture = self._picture()
        if picture is not None:
            (save_directory / FIGURES).mkdir()
            (save_directory / FIGURES / PICTURE_NAME).write_bytes(picture.read_bytes())

    def _picture(self) -> Path | None:
        """The one that the card shows."""
        record, card = self.provenance.record, self.provenance.card
        if record is not None:
            return record.picture
        beside = card.parent / FIGURES / PICTURE_NAME if card is not None else None
        return beside if beside is not None and beside.is_file() else None


def _provenance(source: WeightSource) -> Provenance:
    published = source.published
    dataset = source.dataset or (published.dataset if published is not None else "")
    name = next((name for name, model in PUBLISHED.items() if model is published), "")
    record = read_run_record(source.path.parent)
    if record is not None and source.path.name != EMA_NAME:  # a run measures and draws with its averaged weights
        record = replace(record, split="", bound={}, bound_iteration=0, picture=None)
    card = source.path.parent / CARD_NAME
    ours = card.is_file() and card.read_text(encoding="utf-8", errors="replace").startswith(
        "---\n"
    )  # not just any README
    return Provenance(dataset, record, averaged=source.averaged, published=name, card=card if ours else None)
