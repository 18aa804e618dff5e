"""What the one word says that names a model on the command line."""

from pathlib import Path

from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import is_file
from vdvae_lr.files.run_folder import SETTINGS_NAME


def is_run(source: str) -> bool:
    """Whether a word names a run's folder (raises InputError where that may not be looked at)."""
    return is_file(Path(source) / SETTINGS_NAME)


def model_name(source: str) -> str:
    """What to call a model: the last piece of its folder, file, repository or address."""
    path = Path(without_secrets(source))
    known = (".th", ".pt", ".safetensors")
    return (path.stem if path.suffix in known else path.name) or path.resolve().name or "model"
