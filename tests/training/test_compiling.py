"""`--compile auto` keeps what it tried only if it is right and faster, and says in one line what it does."""

from collections.abc import Callable

import pytest
import shallow_runs
import torch
from torch import Tensor, fx, nn
from training_runs import ALONE, assert_same_bits, batches_of, fingerprint, tiny_pixels, tiny_settings, tiny_training

from vdvae_lr.processes.world import World
from vdvae_lr.training import compiling
from vdvae_lr.training.compiling import choose_compiled, tries_compiling
from vdvae_lr.training.step import TrainingStep

LONG = 10**9
CARD = World(0, 1, torch.device("cuda"))  # in name only


@pytest.fixture
def times(monkeypatch: pytest.MonkeyPatch) -> dict[bool, float]:
    """The seconds that a trial seems to take, with compiled blocks and without."""
    seconds = {False: 0.003, True: 0.002}
    trial = TrainingStep.trial

    def timed(step: TrainingStep, batch: object, *, compiled: bool) -> tuple[Tensor, float]:
        return trial(step, batch, compiled=compiled)[0], seconds[compiled]  # type: ignore[arg-type]

    monkeypatch.setattr(TrainingStep, "trial", timed)
    return seconds


def compiled_with(monkeypatch: pytest.MonkeyPatch, change: Callable[[TrainingStep], None]) -> TrainingStep:
    """A step, for whose blocks `change` takes the compiler's place."""
    step = tiny_training(compile="auto")
    monkeypatch.setattr(compiling, "compile_blocks", lambda _: change(step))
    return step


def test_only_a_card_is_tried() -> None:
    assert tries_compiling(tiny_settings().run, CARD)
    assert not tries_compiling(tiny_settings().run, ALONE)
    for changes in ({"compile": "on"}, {"compile": "off"}, {"test_eval": True}):
        assert not tries_compiling(tiny_settings(**changes).run, CARD)


def test_a_short_run_does_not_try(times: dict[bool, float], monkeypatch: pytest.MonkeyPatch) -> None:
    step = compiled_with(monkeypatch, lambda _: pytest.fail("compiled"))
    assert choose_compiled(step, 1000) == ""  # 2 micro-batches of 3 ms a step: 6 s


def test_faster_blocks_are_kept(times: dict[bool, float], monkeypatch: pytest.MonkeyPatch) -> None:
    step = compiled_with(monkeypatch, lambda _: None)
    said = choose_compiled(step, LONG)
    assert said.startswith("compile auto: compiled blocks (2 ms a micro-batch compiled, 3 ms plain; the trial took ")
    assert step.compiled


def test_slower_blocks_are_not(times: dict[bool, float], monkeypatch: pytest.MonkeyPatch) -> None:
    times[True] = 0.004
    step = compiled_with(monkeypatch, lambda _: None)
    assert choose_compiled(step, LONG) == "compile auto: plain blocks (4 ms a micro-batch compiled, 3 ms plain)."
    assert not step.compiled


def test_a_wrong_gradient_is_found(times: dict[bool, float], monkeypatch: pytest.MonkeyPatch) -> None:
    step = compiled_with(monkeypatch, lambda step: step.optimiser.weights.values.data.mul_(1.5))
    assert "plain blocks (compiled ones give another gradient, by " in choose_compiled(step, LONG)
    assert not step.compiled


@pytest.mark.parametrize("error", [RuntimeError("no C compiler\nlong text"), torch.OutOfMemoryError("full"), OSError()])
def test_a_failure_leaves_the_plain_step(
    error: Exception, times: dict[bool, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: TrainingStep) -> None:
        raise error

    step = compiled_with(monkeypatch, fail)
    said = choose_compiled(step, LONG)
    assert f"compiling failed ({type(error).__name__}: " in said and "\n" not in said
    assert not step.compiled


def test_another_process_that_cannot_compile_decides_for_all(
    times: dict[bool, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = compiled_with(monkeypatch, lambda _: None)
    monkeypatch.setattr(World, "highest", lambda self, number: max(number, 1))
    assert choose_compiled(step, LONG).endswith("3 ms plain; another process cannot use compiled ones).")
    assert not step.compiled


@pytest.mark.parametrize("build", [tiny_training, shallow_runs.training], ids=["VDVAE", "batch normalisation"])
def test_a_trial_changes_nothing_that_is_trained(build: Callable[[], TrainingStep]) -> None:
    tried, other = build(), build()
    size = tried.n_batch
    gradient, seconds = tried.trial(batches_of(tiny_pixels(size, seed=1), size)[0], compiled=False)
    assert seconds > 0 and float(gradient.norm()) > 0
    for step in (tried, other):
        step(0, 0.5, batches_of(tiny_pixels(2 * size), size))
    assert_same_bits(fingerprint(tried), fingerprint(other))
    assert torch.equal(tried.sums, other.sums)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at its own inputs
def test_the_real_compiler_gives_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiler's front half; its back half would take a minute."""
    compile_module = nn.Module.compile
    graphs = []

    def counted(graph: fx.GraphModule, examples: object) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda self, **words: compile_module(self, **words, backend=counted))
    step = tiny_training(compile="auto")
    batch = batches_of(tiny_pixels(2), 2)[0]
    plain, _ = step.trial(batch, compiled=False)
    assert not graphs
    torch._dynamo.reset()
    compiling.compile_blocks(step.model)
    compiled, _ = step.trial(batch, compiled=True)
    assert graphs
    torch.testing.assert_close(compiled, plain)
