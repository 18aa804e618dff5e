"""The page of `vdvae-lr app`, in Gradio: controls, and the pictures of a `Workbench` that they ask for.

Everything comes from this program: no font, script or count of visitors is fetched from or sent to another place.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from PIL import Image

from vdvae_lr.app.workbench import Workbench
from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation.group_choice import describe_groups
from vdvae_lr.pictures.images import Pictures

_THEME = gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))
_HIGHEST_TEMPERATURE = 1.5
_HIGHEST_VARIANCE = 4.0
_LONGEST_OPEN = 16
"""Latent groups; the temperatures of more are folded away at first."""
_UNITS = [("the prior's scale σ_p", "prior_scale"), ("the latents' own scale", "raw")]
_YOURS = -1
_ABOUT = """# What the latents do
Models: {models}, with {groups}, from coarse to fine. All get the same noise, so their rows differ only by what the
models make of it.
"""
_WIDE = 240
"""Pixels that a control with a long label needs; on a narrow screen such controls stand below one another."""
View = Callable[..., Image.Image | None]


def build_page(bench: Workbench) -> gr.Blocks:
    """The page for some models and images."""
    models = ", ".join(name or "the model" for name in bench.models)
    groups = describe_groups(bench.resolutions).removeprefix("the model has ")
    with gr.Blocks(title="vdvae_lr", analytics_enabled=False) as page:
        gr.Markdown(_ABOUT.format(models=models, groups=groups))
        place = _Place(bench)
        for title, fill in (
            ("Noise", _noise),
            ("First groups", _first_groups),
            ("Samples", _samples),
            ("Two images", _two_images),
        ):
            with gr.Tab(title) as tab:
                fill(bench, place, title)
            tab.select(lambda title=title: title, None, place.open_tab, api_visibility="private")
        page.load(lambda: "Noise", None, place.open_tab, api_visibility="private")
    return page


def open_page(bench: Workbench, host: str, port: int, in_browser: bool) -> str:
    """Serve the page from a thread, to this process's end; returns its address.

    Port 0 is the first free one from 7860 on. Raises OSError if none is free.
    """
    page = build_page(bench)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port or None,
        inbrowser=in_browser,
        prevent_thread_lock=True,
        share=False,
        quiet=True,
        theme=_THEME,
        max_file_size="50mb",
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    return str(address)


class _Place:
    """Where a visitor is: the image that they added, and the tab that is open."""

    def __init__(self, bench: Workbench) -> None:
        self.open_tab = gr.State("")
        self.own = gr.State(None)
        with gr.Accordion("Add an image of yours", open=not len(bench.examples)):
            file = gr.Image(type="filepath", sources=["upload", "clipboard"], height=200, label="your image")
            said = gr.Markdown()

        def read(path: str | None) -> tuple[Pictures | None, str]:
            if path is None:
                return None, ""
            picture, change = bench.read(path)
            return picture, f"It was {change}." if change else ""

        file.change(_with_its_sentence(read), file, [self.own, said], api_visibility="private")

    def show(self, title: str, view: View, controls: Sequence[Any], words: str) -> None:
        """A picture below the controls of a tab: `view` of their values, made anew as soon as one of them changes.

        `words` say what it is, for those who do not see it. A tab that is not open makes no picture.
        """
        picture = _picture(words)

        def made(open_tab: str, *values: Any) -> Any:
            return view(*values) if open_tab == title else gr.skip()

        gr.on(
            [each.change for each in (self.open_tab, self.own, *controls)],
            _with_its_sentence(made),
            [self.open_tab, *controls],
            picture,
            trigger_mode="always_last",  # while a slider moves, only its last place counts
            show_progress="minimal",
            concurrency_id="models",  # one picture at a time
            api_visibility="private",
        )


def _with_its_sentence(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Show the sentence of a refusal on the page."""

    def handled(*values: Any) -> Any:
        try:
            return handler(*values)
        except (InputError, UnmeasurableError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    return handled


def _picture(words: str, value: Image.Image | None = None) -> gr.Image:
    return gr.Image(
        value,
        show_label=False,
        interactive=False,
        format="png",
        alt_text=words,
        buttons=["download", "fullscreen"],
    )


def _slider(most: float, value: float, label: str, step: float = 0.05, visible: bool = True) -> gr.Slider:
    return gr.Slider(0, most, value, step=step, label=label, visible=visible, min_width=_WIDE)


def _seed() -> gr.Number:
    return gr.Number(0, label="seed of the noise", precision=0, minimum=0, maximum=2**31 - 1, min_width=_WIDE)


def _noise(bench: Workbench, place: _Place, title: str) -> None:
    groups = len(bench.resolutions)
    last, finest = groups - 1, groups - max(1, groups // 4)
    with gr.Row():
        variance = _slider(_HIGHEST_VARIANCE, 1, "variance of the noise")
        first = _slider(last, finest, "first group with noise", step=1, visible=groups > 1)
        final = _slider(last, last, "last group with noise", step=1, visible=groups > 1)
    with gr.Row():
        unit = gr.Radio(_UNITS, value="prior_scale", label="variance in units of", min_width=_WIDE)
        differences = gr.Checkbox(True, label="differences, too", min_width=_WIDE)
        seed = _seed()

    def view(own: Pictures | None, variance: float, first: int, final: int, *rest: Any) -> Image.Image | None:
        unit, differences, seed = rest
        groups = range(min(first, final), max(first, final) + 1)
        return bench.under_noise(own, variance, unit, groups, differences, seed)

    controls = [variance, first, final, unit, differences, seed]
    place.show(title, view, [place.own, *controls], "Images under noise in their latents, a row for each model")


def _first_groups(bench: Workbench, place: _Place, title: str) -> None:
    with gr.Row():
        count = _first_count(bench, "groups that keep the image's latents")
        temperature = _slider(_HIGHEST_TEMPERATURE, 0.1, "temperature of the others")
        seed = _seed()
    words = "Images, and below them what the first latent groups keep of them, a row for each model"
    place.show(title, bench.from_first_groups, [place.own, count, temperature, seed], words)


def _samples(bench: Workbench, place: _Place, title: str) -> None:
    with gr.Row():
        every = _slider(_HIGHEST_TEMPERATURE, 1, "temperature of all groups")
        seed = _seed()
    with gr.Accordion("Temperature of each group", open=len(bench.resolutions) <= _LONGEST_OPEN), gr.Row():
        each = [
            _slider(_HIGHEST_TEMPERATURE, 1, f"group {number}, {side}×{side}")
            for number, side in enumerate(bench.resolutions)
        ]
    every.input(lambda value: [value] * len(each), every, each, api_visibility="private", show_progress="hidden")
    place.show(title, bench.samples, [seed, *each], "Samples from the prior, a row for each model")


def _two_images(bench: Workbench, place: _Place, title: str) -> None:
    numbers = range(len(bench.examples))
    choices = [("yours", _YOURS), *((str(number), number) for number in numbers)]
    if numbers:
        _picture("The images, numbered", bench.numbered())
    with gr.Row():
        a = gr.Radio(choices, value=0 if numbers else _YOURS, label="image A")
        b = gr.Radio(choices, value=min(1, len(numbers) - 1) if numbers else _YOURS, label="image B")
        count = _first_count(bench, "groups that count as first")

    def pair(own: Pictures | None, a: int, b: int) -> Pictures | None:
        return bench.pair(*(own if number == _YOURS else bench.examples[number] for number in (a, b)))

    chosen = [place.own, a, b]
    words = "Images A and B with their first latent groups exchanged, a row for each model"
    place.show(title, lambda own, a, b, count: bench.swapped(pair(own, a, b), count), [*chosen, count], words)
    words = "The way from image A to image B through the latents, a row for each model"
    place.show(title, lambda own, a, b: bench.between(pair(own, a, b)), chosen, words)


def _first_count(bench: Workbench, label: str) -> gr.Slider:
    groups = len(bench.resolutions)
    return _slider(groups, max(1, groups // 4), label, step=1)
