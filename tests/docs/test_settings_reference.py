"""docs/settings.md is what the source code says."""

import runpy
from dataclasses import dataclass, fields
from typing import Any

import pytest

from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.model.shallow.vae import ShallowConfig
from vdvae_lr.training.settings import Settings


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(CHECKOUT_ROOT / "scripts" / "settings_reference.py"))


def test_committed_page_is_what_the_script_writes(script: dict[str, Any]) -> None:
    committed = (CHECKOUT_ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert committed == script["reference"](), f"docs/settings.md is out of date: run `{script['COMMAND']}`"


def test_every_setting_has_its_row(script: dict[str, Any]) -> None:
    rows = [line.split(" |")[0] for line in script["reference"]().splitlines() if line.startswith("| `--")]
    names = [*Settings().flat(), *(field.name for field in fields(ShallowConfig))]
    assert [row.removeprefix("| ").split(", ")[0] for row in rows] == [f"`--{name}`" for name in names]


@dataclass
class Documented:
    """Two fields."""

    first: int = 1
    """One line,
    and another."""
    second: str = ""
    """Text."""


@dataclass
class Undocumented:
    """One field."""

    first: int = 1


def test_docstrings_of_fields(script: dict[str, Any]) -> None:
    assert script["field_docstrings"](Documented) == {"first": "One line, and another.", "second": "Text."}
    with pytest.raises(ValueError, match="first has no docstring"):
        script["field_docstrings"](Undocumented)
