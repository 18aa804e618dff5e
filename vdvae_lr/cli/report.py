"""`report`: up to four runs side by side on one HTML page, which needs no other file.

    vdvae-lr report runs/demo/plain runs/demo/lr --out demo/report.html

It reads the files of runs and evaluations. It loads no model and computes nothing.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from vdvae_lr.cli.shared.config import settings_of_presets
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import is_folder
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.report.page import FIRST_LINE, report_page
from vdvae_lr.report.reported import Reported, read_reported
from vdvae_lr.setting_checks import check_settings
from vdvae_lr.training.settings import NEUTRAL

REPORT_NAME = "report.html"


@dataclass(frozen=True)
class ReportSettings:
    """Write one HTML page on up to four runs side by side: curves, charts by latent group, pictures, settings."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]RUN")]
    """Folders of runs, or of evaluations of other weights. The others are compared with the first one. NAME is the
    run's name on the page (default: the name of its folder)."""
    out: Path | None = None
    """The file to write (default: report.html, in the run's folder for one run, in the current folder for several)."""

    def __post_init__(self) -> None:
        """Check every setting by its type (raises InputError)."""
        check_settings(self)


def run(settings: ReportSettings) -> None:
    """Read the runs and write the page (raises InputError if a run cannot be read, or the file cannot be written).

    An earlier report is replaced; any other file is refused.
    """
    reported = [_with_choices(each) for each in read_reported(settings.runs)]
    target = settings.out or (reported[0].folder / REPORT_NAME if len(reported) == 1 else Path(REPORT_NAME))
    _check_replaceable(target)
    content = report_page(reported, NEUTRAL).encode("utf-8", "replace")  # a file's name may hold undecodable bytes
    write_whole(target, content)
    print(f"wrote {target} ({len(content) / 1e6:.1f} MB)")
    for each in reported:
        for remark in each.remarks:
            print(f"{each.label}: {remark}")


def _check_replaceable(target: Path) -> None:
    if is_folder(target):
        raise InputError(f"{target} is a folder; name a file with --out, such as {target / REPORT_NAME}.")
    mark = FIRST_LINE.encode()
    try:
        with target.open("rb") as file:
            start = file.read(len(mark))
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}); choose another --out.") from None
    if start != mark:
        raise InputError(f"{target} exists and is not a report; choose another --out, or remove it first.")


def _with_choices(reported: Reported) -> Reported:
    """Add the names of the settings that differ from the run's preset, if that preset is known here."""
    try:
        preset: Mapping[str, Any] = settings_of_presets(str(reported.settings.get("hps", ""))).flat()
    except (InputError, ValueError, OSError):  # such as a name that no file can have
        return reported
    chosen = {
        name for name, value in reported.settings.items() if name in preset and name != "hps" and preset[name] != value
    }
    return dataclasses.replace(reported, chosen=frozenset(chosen))
