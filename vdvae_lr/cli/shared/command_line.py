"""From a command line to settings, by `tyro`, with plainer messages for the most frequent mistakes."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from vdvae_lr.errors import InputError
from vdvae_lr.processes.failures import DEBUG_HELP
from vdvae_lr.setting_checks import whole_number_hint

T = TypeVar("T")

_WORDS = {"true": True, "false": False}
_registry = ConstructorRegistry()


def parse_settings(
    kind: type[T], arguments: Sequence[str], program: str, default: T | None = None, example: str = ""
) -> T:
    """Settings from the words of a command line; later words win over earlier ones.

    `--help` ends the program, and so do words that no setting understands, with tyro's message.

    Args:
        kind: the dataclass of the settings.
        arguments: the words after the program's name.
        program: the program's name in messages.
        default: values of the settings that no word names; None: the dataclass's own.
        example: a whole line for `--help`.

    Raises:
        InputError: the dataclass refuses a value, or a flag has a value that is neither true nor false.
    """
    words = list(_with_flags(arguments, set(_flags(kind))))
    given: dict[str, Any] = {} if default is None else {"default": default}
    about = "\n\n".join(filter(None, [inspect.getdoc(kind), example and f"Example: {example}", DEBUG_HELP]))
    return tyro.cli(
        kind, args=words, prog=program, description=about, use_underscores=True, registry=_registry, **given
    )


def _flags(kind: Any) -> Iterator[str]:
    """Names of the settings that are true or false, also in nested dataclasses."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if hints[field.name] is bool:
            yield field.name
        elif dataclasses.is_dataclass(hints[field.name]):
            yield from _flags(hints[field.name])


def _with_flags(arguments: Sequence[str], flags: set[str]) -> Iterator[str]:
    """The words, with `--flag` and `--no_flag` for `--flag True` and `--flag=false`."""
    words = list(arguments)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        known = name.removeprefix("no_") if name not in flags else name
        if not option.startswith("--") or known not in flags:
            yield word
            continue
        if not equals and words and words[0].lower() in _WORDS:
            equals, value = "=", words.pop(0)
        if equals and (value.lower() not in _WORDS or known != name):
            raise InputError(f"'{option} {value}' is neither yes nor no; write --{known} or --no_{known}.")
        yield option if _WORDS.get(value.lower(), True) else f"--no_{name}"


@_registry.primitive_rule
def _whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
    if info.type is not int:
        return None
    return PrimitiveConstructorSpec(1, "INT", _to_int, lambda value: isinstance(value, int), lambda value: [str(value)])


def _to_int(words: list[str]) -> int:
    (word,) = words
    if not re.fullmatch(r"[+-]?\d{1,4000}", word.strip().replace("_", "")):
        raise ValueError(f"'{word[:50]}' is no whole number{whole_number_hint(word)}")
    return int(word)
