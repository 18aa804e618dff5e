"""`report`: up to four runs side by side, as one HTML page that needs nothing else.

    vdvae-lr report runs/demo/plain runs/demo/lr --out demo/report.html

reads what runs and `evaluate` left on the disk; it loads no model and computes nothing.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vdvae_lr.cli.shared.config import apply_values
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import is_folder
from vdvae_lr.files.presets import read_presets
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.report.data import Reported, read_reported
from vdvae_lr.report.html import FIRST_LINE
from vdvae_lr.report.page import report_page
from vdvae_lr.setting_checks import check_settings
from vdvae_lr.training.settings import NEUTRAL, Settings

REPORT_NAME = "report.html"


@dataclass(frozen=True)
class ReportSettings:
    """Write one HTML page on up to four runs side by side: curves, charts by latent group, pictures, settings."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]RUN")]
    """Folders of runs, or of evaluations of other weights; the first is what the others are compared with. NAME is what
    the page calls it; left out: as its folder is called."""
    out: Path | None = None
    """The file to write; left out: report.html in the run's folder for one run, in this folder for several."""

    def __post_init__(self) -> None:
        """Check every setting by its type; raises InputError."""
        check_settings(self)


def run(settings: ReportSettings) -> None:
    """Read, and write the page; an earlier report is replaced, any other file is left alone.

    Raises:
        InputError: runs that cannot be read, or a file that cannot, or must not, be written.
    """
    reported = [_with_choices(each) for each in read_reported(settings.runs)]
    target = settings.out or (reported[0].folder / REPORT_NAME if len(reported) == 1 else Path(REPORT_NAME))
    _check_replaceable(target)
    content = report_page(reported, NEUTRAL).encode("utf-8", "replace")  # names of files need not be text
    write_whole(target, content)
    print(f"wrote {target} ({len(content) / 1e6:.1f} MB)")
    for each in reported:
        for remark in each.remarks:
            print(f"{each.label}: {remark}")


def _check_replaceable(target: Path) -> None:
    if is_folder(target):
        raise InputError(f"{target} is a folder; name a file with --out, such as {target / REPORT_NAME}.")
    try:
        with target.open("rb") as file:
            start = file.read(len(FIRST_LINE.encode()))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}); choose another --out.") from None
    if start != FIRST_LINE.encode():
        raise InputError(f"{target} exists and is no report; choose another --out, or remove it first.")


def _with_choices(reported: Reported) -> Reported:
    """The same with what its settings have in other ways than its preset, where that preset is known here."""
    try:
        values = read_presets(str(reported.settings.get("hps", "")))
        preset: Mapping[str, Any] = apply_values(Settings(), values, "").flat()
    except (InputError, ValueError, OSError):  # such as a name that no file can have
        return reported
    chosen = {
        name for name, value in reported.settings.items() if name in preset and name != "hps" and preset[name] != value
    }
    return dataclasses.replace(reported, chosen=frozenset(chosen))
