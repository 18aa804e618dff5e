"""An evaluation as one JSON document: written by `evaluate`, read by `report`.

Not a number of it is rounded, and every one names its unit; docs/evaluation.md defines each quantity by its key. JSON
has no NaN and no infinity: a number that is not finite is null there, and NaN when it is read.

L latent groups.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vdvae_lr.datasets.inventory import Inventory
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.quantities import InputRates, Measurement, Quantity
from vdvae_lr.files.paths import cannot_be_read, is_folder
from vdvae_lr.files.whole_file import write_whole

EVALUATION_NAME = "evaluation.json"
COLLAPSE_PICTURE = "nearest_collapse.png"
NOISE_PICTURE = "noise_response.png"
FORMAT = "vdvae_lr evaluation 1"
SEVERAL_FORMAT = "vdvae_lr evaluations 1"
_FAMILY = "vdvae_lr evaluation"


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
    """Of every latent group, top-down."""
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
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was measured: images, draws and thresholds of the sections; plain JSON."""
    iteration: int | None = None
    """Of the checkpoint, where the weights are a run's."""
    inventory: Inventory = field(default_factory=dict)
    """What the data set was found to hold; empty where an earlier version measured."""
    channels: tuple[int, ...] = ()
    """Of every latent group, top-down; empty where an earlier version measured."""

    def quantity(self, key: str) -> Quantity | None:
        """The quantity of that key; None where it was not measured."""
        return next((quantity for quantity in self.quantities if quantity.key == key), None)


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write one evaluation, whole or not at all (raises InputError where the disk refuses)."""
    _write_text(evaluation_json(evaluation), path)


def write_evaluations(evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Write several models' evaluations by name, whole or not at all (raises InputError where the disk refuses)."""
    models = {name: dataclasses.asdict(evaluation) for name, evaluation in evaluations.items()}
    _write_text(_json({"format": SEVERAL_FORMAT, "models": models}), path)


def _write_text(text: str, path: Path) -> None:
    # what no encoding has, such as half of a pair in a folder's name, becomes JSON's own \uXXXX
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def evaluation_json(evaluation: Evaluation) -> str:
    """The document's text; equal evaluations have equal texts."""
    return _json({"format": FORMAT, **dataclasses.asdict(evaluation)})


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(_finite(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file.

    Args:
        path: of the file, or of the folder that `evaluate` left it in.

    Raises:
        InputError: no such file, a damaged one, or one of another kind or version.
    """
    path = path / EVALUATION_NAME if is_folder(path) else path
    content = _read_json(path)
    kind = content.get("format") if isinstance(content, dict) else None
    if not isinstance(kind, str) or not kind.startswith(_FAMILY):
        raise InputError(f"{path} is no evaluation; give an {EVALUATION_NAME} that `vdvae-lr evaluate` wrote.")
    if kind != FORMAT:
        raise InputError(
            f"{path} is of another version of this program ({kind!r:.60}, here '{FORMAT}'); evaluate the model again."
        )
    try:
        return _evaluation(content)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{path} is a damaged evaluation; evaluate the model again.") from None


def read_evaluations(path: Path) -> dict[str, Evaluation]:
    """The evaluations by name that `compare` or `noise` left in a file, also in the form of earlier versions.

    Raises:
        InputError: no such file, or a damaged one.
    """
    content = _read_json(path)
    try:
        if content.get("format") == SEVERAL_FORMAT:
            return {name: _evaluation(each) for name, each in content["models"].items()}
        return _earlier_comparison(content)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
        raise InputError(f"{path} holds no comparison of models; compare them again.") from None


def _earlier_comparison(content: dict[str, Any]) -> dict[str, Evaluation]:
    """From a comparison.json without `format`: rows of models, some under other keys."""
    rows = content["rows"]
    return {
        name: Evaluation(
            name=name,
            source=_text(source),
            model={},
            dimensions=_whole(content["dimensions"]),
            resolutions=(),
            dataset=_text(content["dataset"]),
            split=_text(content["split"]),
            examples=_whole(content["examples"]),
            seed=_whole(content["seed"]),
            versions={},
            quantities=tuple(
                Quantity(current_key(key), _text(row["title"]), "", _measurement(row["models"][name]))
                for key, row in rows.items()
            ),
            inventory=_mapping(content.get("inventory", {})),
        )
        for name, source in content["sources"].items()
    }


def current_key(key: str) -> str:
    """What a quantity of an earlier comparison is called now."""
    return {"latent_reconstruction": "lr_information"}.get(key, key.replace("noise_response_", "noise_rms_"))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no evaluation {path}; make one with `vdvae-lr evaluate RUN_OR_WEIGHTS`.") from None
    except OSError as error:
        raise cannot_be_read(path, error) from None
    except (ValueError, RecursionError):  # no JSON, or no text at all
        raise InputError(f"{path} is damaged: it is no JSON; evaluate the model again.") from None


def _evaluation(content: dict[str, Any]) -> Evaluation:
    """From a document's content; raises what the pieces do when it is not what was written."""
    resolutions = tuple(_whole(level) for level in content["resolutions"])
    quantities = tuple(_quantity(item, len(resolutions)) for item in content["quantities"])
    return Evaluation(
        name=_text(content["name"]),
        source=_text(content["source"]),
        model=_mapping(content["model"]),
        dimensions=_whole(content["dimensions"]),
        resolutions=resolutions,
        dataset=_text(content["dataset"]),
        split=_text(content["split"]),
        examples=_whole(content["examples"]),
        seed=_whole(content["seed"]),
        versions={name: _text(version) for name, version in content["versions"].items()},
        quantities=quantities,
        inputs=None if content["inputs"] is None else _input_rates(content["inputs"], len(resolutions)),
        details=_mapping(content["details"]),
        notes=tuple(_text(note) for note in content["notes"]),
        settings=_mapping(content["settings"]),
        iteration=None if content["iteration"] is None else _whole(content["iteration"]),
        inventory=_mapping(content.get("inventory", {})),
        channels=tuple(_whole(channels) for channels in content.get("channels", ())),
    )


def _quantity(content: dict[str, Any], groups: int) -> Quantity:
    parts = tuple(_measurement(part) for part in content["groups"])
    if len(parts) not in (0, groups):
        raise ValueError("another number of groups")
    return Quantity(
        _text(content["key"]),
        _text(content["title"]),
        _text(content["unit"]),
        None if content["total"] is None else _measurement(content["total"]),
        parts,
        {int(level): _measurement(part) for level, part in content["resolutions"].items()},
    )


def _measurement(content: dict[str, Any]) -> Measurement:
    error = content["standard_error"]
    return Measurement(_number(content["value"]), None if error is None else _number(error), _whole(content["images"]))


def _input_rates(content: dict[str, Any], groups: int) -> InputRates:
    group_quantiles = tuple(_quantiles(item) for item in content["group_quantiles"])
    if len(group_quantiles) != groups:
        raise ValueError("another number of groups")
    nearest = tuple((_whole(number), _number(rate)) for number, rate in content["nearest_collapse"])
    images, unit = _whole(content["images"]), _text(content["unit"])
    return InputRates(images, unit, _quantiles(content["quantiles"]), group_quantiles, nearest)


def _quantiles(content: dict[str, Any]) -> dict[str, float]:
    if not all(0 <= float(name) <= 1 for name in content):
        raise ValueError("no probability")
    return {name: _number(value) for name, value in content.items()}


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("no whole number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("no mapping")
    return value
