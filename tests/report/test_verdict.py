"""The first thing that the report says: what LR changed, at what price, and whether that is clear."""

import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from reported_folders import PageReader, evaluated_folder, evaluation, page_of, quantity, row, run_folder

from vdvae_lr.evaluation.document import write_evaluation
from vdvae_lr.evaluation.quantities import Measurement, Quantity


def lr_against_plain(folder: Path, shift: float, spread: float, **settings: object) -> tuple[str, str]:
    """The page on two runs whose bounds differ by `shift`, and by ± `spread` more from image to image."""
    runs = [run_folder(folder / name, alpha_T=alpha) for name, alpha in (("plain", 0.0), ("lr", 0.5))]
    for number, run in enumerate(runs):
        images = [1.0 + 0.1 * image + number * (shift + spread * (-1) ** image) for image in range(50)]
        bound = Quantity("negative_elbo", "bound", "nats/dim", Measurement(fmean(images), 0.2, 50), by_image=(*images,))
        own, fresh = (
            Quantity(
                f"information_from_samples{end}", f"eq. 5{end}", "nats/dim", Measurement(0.2 + number / 10, 0.1, 50)
            )
            for end in ("", "_fresh")
        )
        found = replace(evaluation(settings=settings if number else {}), quantities=(bound, own, fresh))
        write_evaluation(found, run / "evaluation" / "evaluation.json")
    page = page_of(*runs)
    (said,) = re.findall(r'<p class="verdict">(.*?)</p>', page)
    return page, said


def test_the_first_thing_said_is_what_lr_did_and_at_what_price(tmp_path: Path) -> None:
    page, said = lr_against_plain(tmp_path, shift=0.07, spread=0.01)
    assert said == (
        "lr against plain: the bound is 2.03% worse; eq. 5 is 50.0% higher; what an encoder trained afresh reads is "
        "50.0% higher."
    )
    assert "<strong>+2.03%</strong> <small>+0.0700 ± 0.0014, clear</small>" in page
    assert row(page, "bound")[1:] == ["3.45 ± 0.20", "3.52 ± 0.20"]


def test_a_difference_within_noise_is_called_so(tmp_path: Path) -> None:
    page, said = lr_against_plain(tmp_path, shift=0.01, spread=0.05)
    assert said.startswith("lr against plain: the bound is the same within noise (+0.3%);")
    assert row(page, "bound")[0] == "+0.3% +0.0100 ± 0.0071, within noise"


def test_other_counts_are_never_subtracted(tmp_path: Path) -> None:
    page, said = lr_against_plain(tmp_path, 0.07, 0.01, reader_iterations=9)
    assert row(page, "eq. 5_fresh")[0] == "–"
    assert "no encoder trained afresh has read it (<code>--reader_iterations 2000</code>)" in said


def information(readers: dict[str, list[float]]) -> tuple[Quantity, ...]:
    return tuple(
        quantity(f"information_from_samples{ending}", f"eq. 5{ending}", "nats/dim", groups)
        for ending, groups in readers.items()
    )


def test_latent_groups_are_shown_as_differences_and_by_reader(tmp_path: Path) -> None:
    readers = {"": [0.1, 0.2, 0.3, 0.4], "_fresh": [0.1, 0.1, 0.3, 0.1]}
    plain = evaluated_folder(tmp_path / "plain", "plain", quantities=information(readers))
    lr = evaluated_folder(tmp_path / "lr", "LR", quantities=information({"": [0.2, 0.2, 0.3, 0.9]}))
    page = page_of(plain, lr)
    labels = [str(each["alt"]) for each in PageReader(page).attributes("img") if "Chart" in str(each["alt"])]
    over = "latent group, 0 = coarsest (above: resolution)"
    assert labels[:2] == [
        f"Chart: eq. 5 of plain, by the encoder that reads it; nats/dim over {over}; its own, trained afresh",
        f"Chart: eq. 5: difference from plain; nats/dim over {over}; LR",
    ]
    assert f"Chart: eq. 5; nats/dim over {over}; plain, LR" in page.partition("More quantities by latent group")[2]
    alone = [str(each["alt"]) for each in PageReader(page_of(lr)).attributes("img")]
    assert f"Chart: eq. 5; nats/dim over {over}; LR" in alone


def responses(groups: list[float]) -> tuple[Quantity, ...]:
    """The answer to noise in all groups, and in each group alone with an error of 0.001."""
    alone = tuple(Measurement(value, 0.001, 50) for value in groups)
    key = "noise_rms_prior_scale_0.3"
    return (Quantity(key, "image RMS", "", Measurement(0.09, 0.001, 50), alone, by_image=(0.08, 0.1) * 25),)


def test_the_group_that_opened_is_named(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / name, alpha_T=alpha) for name, alpha in (("plain", 0.0), ("lr", 0.5))]
    for run, groups in zip(runs, ([0.06, 0.009, 0.0001, 0.02], [0.059, 0.028, 0.0004, 0.021]), strict=True):
        write_evaluation(replace(evaluation(), quantities=responses(groups)), run / "evaluation" / "evaluation.json")
    (said,) = re.findall(r'<p class="verdict">(.*?)</p>', page_of(*runs))
    # group 2 changed most, but does not matter; the others are the same within noise
    assert said.endswith("and to noise in latent group 1 (4×4) alone it is 3.1 times as strong.")


def test_without_a_group_that_opened_none_is_named(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / name, alpha_T=alpha) for name, alpha in (("plain", 0.0), ("lr", 0.5))]
    for run, groups in zip(runs, ([0.06, 0.009, 0.0001, 0.02], [0.059, 0.01, 0.0004, 0.021]), strict=True):
        write_evaluation(replace(evaluation(), quantities=responses(groups)), run / "evaluation" / "evaluation.json")
    (said,) = re.findall(r'<p class="verdict">(.*?)</p>', page_of(*runs))
    assert "alone" not in said
