"""An evaluation as one JSON document: `evaluate` writes it, `report` reads it.

`compare`, `noise` and `quality` write several. No number is rounded, and each names its unit. docs/evaluation.md
defines each quantity by its key. JSON has neither NaN nor infinity: a number that is not finite is written as null, and
read as NaN.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vdvae_lr.datasets.inventory import Inventory
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.quantities import InputRates, Quantity
from vdvae_lr.files.paths import cannot_be_read, is_folder
from vdvae_lr.files.whole_file import write_whole

EVALUATION_NAME = "evaluation.json"
QUALITY_NAME = "quality.json"
COLLAPSE_PICTURE = "nearest_collapse.png"
SAMPLES_PICTURE = "samples.png"
NOISE_PICTURE = "noise_{unit}_{variance}.png"
FORMAT = "vdvae_lr evaluation 1"
SEVERAL_FORMAT = "vdvae_lr evaluations 1"
_FAMILY = "vdvae_lr evaluation"
_DAMAGE = (AttributeError, KeyError, TypeError, ValueError, OverflowError)
"""What reading raises if the content is not what was written."""


@dataclass(frozen=True)
class Evaluation:
    """Everything measured on one model."""

    name: str
    """The model's name in tables and in the report."""
    source: str
    """Where it was loaded from, without secrets."""
    model: Mapping[str, Any]
    """The model's settings, by name."""
    dimensions: int
    """What nats/dim divides by."""
    resolutions: tuple[int, ...]
    """The resolution of every latent group, top-down."""
    dataset: str
    split: str
    examples: int
    seed: int
    versions: Mapping[str, str]
    """vdvae_lr, torch, python, device."""
    quantities: tuple[Quantity, ...]
    inputs: InputRates | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """What is not a number by group, such as spectra; plain JSON."""
    notes: tuple[str, ...] = ()
    """Sentences that a reader must know to read the numbers right."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How it was measured: images, draws and thresholds of the sections; plain JSON."""
    iteration: int | None = None
    """The checkpoint's iteration, if the weights are a run's."""
    inventory: Inventory = field(default_factory=dict)
    """What the data set was found to hold; empty if an earlier version measured."""
    channels: tuple[int, ...] = ()
    """The latent channels of every group, top-down; empty if an earlier version measured."""

    def quantity(self, key: str) -> Quantity | None:
        """The quantity of that key; None if it was not measured."""
        return next((quantity for quantity in self.quantities if quantity.key == key), None)


_ADDED_LATER: Mapping[Any, dict[str, Any]] = {Evaluation: {"inventory": {}, "channels": []}, Quantity: {"by_image": []}}
"""What files of earlier versions lack."""


def write_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Write one evaluation, whole or not at all (raises InputError if the disk refuses)."""
    _write({"format": FORMAT, **dataclasses.asdict(evaluation)}, path)


def write_evaluations(evaluations: Mapping[str, Evaluation], path: Path) -> None:
    """Write several models' evaluations by name, whole or not at all (raises InputError if the disk refuses)."""
    models = {name: dataclasses.asdict(evaluation) for name, evaluation in evaluations.items()}
    _write({"format": SEVERAL_FORMAT, "models": models}, path)


def _write(content: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(_finite(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    # characters that UTF-8 cannot encode, such as half of a pair in a folder's name, become JSON's own \uXXXX
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_evaluation(path: Path) -> Evaluation:
    """The evaluation in a file, or in the folder that `evaluate` left it in.

    Raises:
        InputError: there is no such file, it is damaged, or it is of another kind or version.
    """
    path = path / EVALUATION_NAME if is_folder(path) else path
    content = _read_json(path)
    kind = content.get("format") if isinstance(content, dict) else None
    if not isinstance(kind, str) or not kind.startswith(_FAMILY):
        raise InputError(f"{path} is not an evaluation; give an {EVALUATION_NAME} that `vdvae-lr evaluate` wrote.")
    if kind != FORMAT:
        raise InputError(
            f"{path} is of another version of this program ({kind!r:.60}, here '{FORMAT}'); evaluate the model again."
        )
    try:
        return _evaluation(content)
    except _DAMAGE:
        raise InputError(f"{path} is a damaged evaluation; evaluate the model again.") from None


def read_evaluations(path: Path) -> dict[str, Evaluation]:
    """The evaluations by name that `compare` or `noise` left in a file, also in the form of earlier versions.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    content = _read_json(path)
    try:
        if content.get("format") == SEVERAL_FORMAT:
            return {name: _evaluation(each) for name, each in content["models"].items()}
        return {name: _earlier_comparison(content, name) for name in content["sources"]}
    except _DAMAGE:
        raise InputError(f"{path} holds no comparison of models; compare them again.") from None


def _earlier_comparison(content: dict[str, Any], name: str) -> Evaluation:
    """One model of a comparison.json without `format`, which has rows of models, some under other keys."""
    quantities = [
        {"key": current_key(key), "title": row["title"], "unit": "", "total": row["models"][name]}
        for key, row in content["rows"].items()
    ]
    return _evaluation(
        {key: content[key] for key in ("dimensions", "dataset", "split", "examples", "seed")}
        | {"name": name, "source": content["sources"][name], "model": {}, "resolutions": [], "versions": {}}
        | {"quantities": [each | {"groups": [], "resolutions": {}} for each in quantities]}
        | {"inputs": None, "details": {}, "notes": [], "settings": {}, "iteration": None}
        | {"inventory": content.get("inventory", {})}
    )


def current_key(key: str) -> str:
    """The present name of a quantity of an earlier comparison."""
    return {"latent_reconstruction": "lr_information"}.get(key, key.replace("noise_response_", "noise_rms_"))


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no evaluation {path}; make one with `vdvae-lr evaluate RUN_OR_WEIGHTS`.") from None
    except OSError as error:
        raise cannot_be_read(path, error) from None
    except (ValueError, RecursionError):  # not JSON, or not even text
        raise InputError(f"{path} is damaged: it is not JSON; evaluate the model again.") from None


def _evaluation(content: dict[str, Any]) -> Evaluation:
    """The evaluation in a document; raises one of `_DAMAGE` if it is not what was written."""
    found: Evaluation = _value(content, Evaluation)
    groups = len(found.resolutions)
    shares = [] if found.inputs is None else [found.inputs.quantiles, *found.inputs.group_quantiles]
    if not all(0 <= float(probability) <= 1 for quantiles in shares for probability in quantiles):
        raise ValueError("not a probability")
    parts = [len(quantity.groups) for quantity in found.quantities if quantity.groups]
    if any(count != groups for count in (*parts, *([len(shares) - 1] if shares else []))):
        raise ValueError("another number of groups")
    kept = [(len(each.by_image), each.total and each.total.images) for each in found.quantities if each.by_image]
    if any(count != images for count, images in kept):
        raise ValueError("another number of images")
    return found


def _value(value: Any, kind: Any) -> Any:
    """A value from JSON as an annotated type: a dataclass, a mapping, a tuple, text, a number, or None."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # such as float | None
        return None if value is None else _value(value, inside[0])
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        content = _ADDED_LATER.get(kind, {}) | value
        return kind(**{each.name: _value(content[each.name], hints[each.name]) for each in dataclasses.fields(kind)})
    if kind is float and value is None:
        return math.nan
    allowed: Any = {Mapping: dict, tuple: list, float: (int, float)}.get(origin or kind, kind)
    if kind is not Any and (isinstance(value, bool) or not isinstance(value, allowed)):
        raise TypeError(f"not of type {kind}")
    if origin is Mapping:
        return {inside[0](key): _value(item, inside[1]) for key, item in value.items()}
    if origin is tuple:
        kinds = [inside[0]] * len(value) if inside[1] is ... else inside
        return tuple(_value(item, each) for item, each in zip(value, kinds, strict=True))
    return float(value) if kind is float else value
