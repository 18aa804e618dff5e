"""One step is the same optimisation however its images are cut up; LR costs nothing when it is off."""

from collections.abc import Callable

import pytest
import shallow_runs
import torch
from call_counter import count_calls
from recorded_events import watched
from training_runs import ALONE, batches_of, fingerprint, tiny_pixels, tiny_training

from vdvae_lr.processes.world import World
from vdvae_lr.training.settings import NEUTRAL
from vdvae_lr.training.step import TrainingStep


def test_micro_batches_average_like_their_gradients() -> None:
    pixels = tiny_pixels(4)
    together = tiny_training(n_batch=2, global_batch=4)
    together(0, 0.5, batches_of(pixels, 2))
    gradient = together.optimiser.weights.gradients.clone()
    parts = []
    for number, batch in enumerate(batches_of(pixels, 2)):
        alone = tiny_training(n_batch=2, global_batch=2)
        alone(0, 0.5, [batch])
        assert batch.micro_batch == number
        parts.append(alone.optimiser.weights.gradients.clone())
    torch.testing.assert_close(gradient, (parts[0] + parts[1]) / 2, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("changes", [{}, {"lr_reading": "random"}, {"lr_latents": "prior"}])
@pytest.mark.parametrize("n_batch", [1, 2])
def test_the_split_into_micro_batches_changes_nothing_but_rounding(n_batch: int, changes: dict[str, object]) -> None:
    """Noise belongs to an image's place in the step, so --n_batch is free to follow the memory of a card."""
    gradients, terms = [], []
    for size in (4, n_batch):
        training = tiny_training(n_batch=size, global_batch=4, **changes)
        training(0, 0.5, batches_of(tiny_pixels(4), size))
        gradients.append(training.optimiser.weights.gradients)
        terms.append(training.sums)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms[1], terms[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("changes", [{}, {"lr_reading": "random", "free_nats": 0.5}])
def test_two_processes_halves_sum_to_one_process(changes: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of two scales its share so that the mean over processes is the global batch's mean."""
    pixels = tiny_pixels(4)
    one = tiny_training(n_batch=2, global_batch=4, **changes)
    one(0, 0.5, batches_of(pixels, 2))
    monkeypatch.setattr(World, "all_reduce_sum_", lambda self, values: values)  # no peer: each share stays as it is
    shares = []
    for rank in range(2):
        training = tiny_training(World(rank, 2, torch.device("cpu")), n_batch=2, global_batch=4, **changes)
        training(0, 0.5, batches_of(pixels, 2)[rank : rank + 1])
        shares.append(training.optimiser.weights.gradients.clone())
    torch.testing.assert_close(one.optimiser.weights.gradients, shares[0] + shares[1], rtol=1e-5, atol=1e-7)


def test_a_step_depends_on_seed_and_iteration_only() -> None:
    pixels = tiny_pixels(4)
    runs = [tiny_training() for _ in range(3)]
    for training, iteration in zip(runs, (7, 7, 8), strict=True):
        training(iteration, 1.0, batches_of(pixels, 2))
    first, again, later = (fingerprint(training)["state"] for training in runs)
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize(
    ("changes", "encodings", "generations"),
    [
        ({"alpha_T": 0.0, "lr_reading": "group"}, 1, 0),
        ({"alpha_T": 1.0}, 2, 0),
        ({"alpha_T": 1.0, "lr_latents": "prior"}, 2, 1),
        ({"alpha_T": 1.0, "lr_reading": "random"}, 2, 0),
        ({"alpha_T": 1.0, "lr_reading": "group"}, 1 + 3, 0),  # the groups are at 1, 4 and 8
    ],
)
def test_passes_of_a_step(changes: dict[str, object], encodings: int, generations: int) -> None:
    training = tiny_training(n_batch=4, **changes)
    encode = count_calls(training.model.encoder)
    decode = count_calls(training.model.decoder)
    training(0, 0.5, batches_of(tiny_pixels(4), 4))
    assert (encode.count, decode.count) == (encodings, 1 + generations)


@pytest.mark.parametrize("iteration", [0, 5, 20])
def test_a_step_weighs_the_rate_with_the_beta_of_its_iteration(iteration: int) -> None:
    pixels = tiny_pixels(4)
    warming = tiny_training(beta=0.8, beta_warmup_iters=10)
    fixed = tiny_training(beta=0.8 * min(1, iteration / 10))
    plain = tiny_training(beta=1.0)
    for training in (warming, fixed, plain):
        training(iteration, 0.5, batches_of(pixels, 2))
    assert warming.beta == pytest.approx(fixed.beta)
    first, second, other = (training.optimiser.weights.gradients for training in (warming, fixed, plain))
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-8)
    assert (first - other).norm() > 1e-4 * other.norm()
    assert torch.equal(warming.sums, fixed.sums)  # the bound that is logged has no weights


def test_random_cutoffs_never_wait_for_the_device() -> None:
    training = tiny_training(lr_reading="random", free_nats=0.5, beta_warmup_iters=10)
    with watched() as traffic:
        training(0, 0.5, batches_of(tiny_pixels(4), 2))
    assert traffic.waits == []


def test_sums_leave_out_a_step_that_is_not_finite() -> None:
    training = tiny_training()
    training(0, 1.0, batches_of(tiny_pixels(4), 2))
    good = training.sums.clone()
    with torch.no_grad():
        training.optimiser.weights.values.fill_(float("nan"))
    training(1, 1.0, batches_of(tiny_pixels(4), 2))
    assert torch.equal(training.sums, good)
    assert (int(training.finite_steps), int(training.optimiser.skipped)) == (1, 1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_close_to_float32(precision: str) -> None:
    pixels = tiny_pixels(4)
    full, half = tiny_training(), tiny_training(precision=precision)
    for training in (full, half):
        training(0, 1.0, batches_of(pixels, 2))
    torch.testing.assert_close(half.sums[0], full.sums[0], rtol=0.01, atol=0)
    assert half.optimiser.weights.values.dtype == torch.float32


def test_activation_checkpointing_gives_the_same_step_bit_for_bit() -> None:
    """So a run that went out of memory may go on with it."""
    pixels = tiny_pixels(4)
    plain, checkpointed = tiny_training(), tiny_training(checkpoint_activations=True)
    for training in (plain, checkpointed):
        training(0, 1.0, batches_of(pixels, 2))
    assert torch.equal(checkpointed.optimiser.weights.gradients, plain.optimiser.weights.gradients)
    assert torch.equal(checkpointed.sums, plain.sums)
    assert {"checkpoint_activations", "checkpoint_resolution"} <= NEUTRAL


PAPERS_LR = {"lr_form": "raw", "lr_target": "live", "lr_image": "mean"}
CUDA = torch.device("cuda", 0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize(
    ("build", "changes"),
    [
        (tiny_training, {"n_batch": 2, "global_batch": 4}),
        (
            tiny_training,
            {"n_batch": 2, "global_batch": 4, "lr_reading": "random", "free_nats": 0.5, "beta_warmup_iters": 2},
        ),
        (shallow_runs.training, {}),
        (shallow_runs.training, PAPERS_LR | {"likelihood": "gaussian"}),
        (shallow_runs.training, {"alpha_T": 0.0, "refinement_steps": 2, "likelihood": "gaussian"}),
        (shallow_runs.training, {"alpha_T": 0.0, "decoder": "brenier", "inverse_lipschitz": 0.2}),
    ],
)
def test_a_captured_graph_makes_the_same_steps(build: Callable[..., TrainingStep], changes: dict[str, object]) -> None:
    eager = build(World(0, 1, CUDA), precision="fp32", cuda_graph=False, **changes)
    graph = build(World(0, 1, CUDA), precision="fp32", cuda_graph=True, **changes)
    n_batch = 2 if build is tiny_training else 4
    for training in (eager, graph):
        for iteration in range(3):
            training(iteration, 0.5, batches_of(tiny_pixels(2 * n_batch), n_batch))
    torch.testing.assert_close(graph.sums, eager.sums, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(graph.optimiser.weights.state, eager.optimiser.weights.state, rtol=1e-3, atol=1e-5)


def test_world_of_one_needs_no_process_group() -> None:
    values = torch.ones(3)
    assert torch.equal(ALONE.all_reduce_mean_(values), torch.ones(3))
    assert (ALONE.highest(-3), ALONE.total(4)) == (-3, 4)
