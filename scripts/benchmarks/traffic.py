"""Count the operations of a training step, and the bytes that they read and write, on any machine in seconds.

    python scripts/benchmarks/traffic.py                             ffhq256: ELBO and LR, in float32 and bf16
    python scripts/benchmarks/traffic.py --preset cifar10 --images 4
    python scripts/benchmarks/traffic.py --kinds                     and the share of each kind of operation
    python scripts/benchmarks/traffic.py --memory                    and what is stored for the backward pass

Nothing is computed: the tensors have shapes and no content. Every operation that is no view counts: it is at least one
kernel on a GPU. Its bytes are those of its inputs and outputs; an expanded tensor counts once. bf16 means that weights
and activations are, as after autocast has cast the weights. Casts of weights and the update do not count. A kernel may
find its input in a cache, so time is not proportional to bytes.

"Fused" is what a perfect compiler leaves: all element-wise operations between two convolutions are one kernel, which
reads each of its inputs once. It is computed from the same list of operations, not measured.
"""

import argparse
import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.cli.shared.config import apply_values
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.files.presets import read_presets
from vdvae_lr.losses.objective import evaluate_objective
from vdvae_lr.model.vdvae.vae import VeryDeepVAE
from vdvae_lr.training.settings import Settings

OBJECTIVES = {"ELBO": 0.0, "ELBO + LR": 1.0}
PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16}
_NO_KERNEL = frozenset(
    {"_unsafe_view", "detach", "empty", "empty_like", "empty_strided", "lift_fresh", "new_empty", "new_empty_strided"}
)
_ALSO_FUSED = frozenset(
    {"_to_copy", "cat", "constant_pad_nd", "copy_", "ones_like", "select_backward", "slice_backward", "stack"}
    | {"upsample_nearest2d", "zeros", "zeros_like"}
)
Memory = int  # the address of what a tensor, and its views, keep their numbers in


@dataclass(frozen=True)
class Operation:
    """One operation that is no view."""

    kind: str
    reads: dict[Memory, int]
    """Bytes by memory."""
    writes: dict[Memory, int]
    fuses: bool
    """A compiler can make one kernel of this operation and those that it reads from."""
    ends: bool
    """What follows needs all of its results, so it begins another kernel."""

    @property
    def bytes(self) -> int:
        """Read and written together."""
        return sum(self.reads.values()) + sum(self.writes.values())


class Recording(TorchDispatchMode):
    """Inside this context, every operation below autograd is recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._alive: list[Any] = []  # so that no memory's address is used twice

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        kind = function.overloadpacket.__name__
        if isinstance(result, Tensor | tuple | list) and not (function.is_view or kind in _NO_KERNEL):
            self._alive += [leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            ends = torch.Tag.reduction in function.tags
            fuses = ends or torch.Tag.pointwise in function.tags or kind in _ALSO_FUSED
            self.operations.append(Operation(kind, _sizes((args, kwargs)), _sizes(result), fuses, ends))
        return result


def _sizes(tree: Any) -> dict[Memory, int]:
    found: dict[Memory, int] = {}
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            sizes = [size for size, stride in zip(leaf.shape, leaf.stride(), strict=True) if stride != 0]
            memory = leaf.untyped_storage()._cdata
            found[memory] = found.get(memory, 0) + leaf.element_size() * math.prod(sizes)
    return found


def fused(operations: Sequence[Operation]) -> tuple[int, int]:
    """How many kernels a perfect compiler makes of the operations, and the bytes that those read and write.

    The depth of a result is the number of operations that cannot be fused on the longest way to it. Operations of one
    depth that read from each other become one kernel; so no kernel waits for another one that waits for it.
    """
    made: dict[Memory, tuple[int, int]] = {}  # depth, and the operation that wrote it
    kernel_of: list[int] = []

    def kernel(index: int) -> int:
        while kernel_of[index] != index:
            index = kernel_of[index]
        return index

    for index, operation in enumerate(operations):
        kernel_of.append(index)
        sources = [made[memory] for memory in operation.reads if memory in made]
        depth = max((depth for depth, _ in sources), default=0)
        if operation.fuses:
            for source_depth, writer in sources:
                if source_depth == depth and operations[writer].fuses and not operations[writer].ends:
                    kernel_of[kernel(writer)] = index
        after = depth + (operation.ends or not operation.fuses)
        made |= dict.fromkeys(operation.writes, (after, index))
    reads: dict[tuple[int, Memory], int] = {}
    writes: dict[Memory, tuple[int, int]] = {}
    inside: set[Memory] = set()
    for index, operation in enumerate(operations):
        for memory, size in operation.reads.items():
            if memory in writes and writes[memory][0] == kernel(index):
                inside.add(memory)
            else:
                reads[kernel(index), memory] = max(size, reads.get((kernel(index), memory), 0))
        writes |= {memory: (kernel(index), size) for memory, size in operation.writes.items()}
    inside -= {memory for _, memory in reads}
    written = sum(size for memory, (_, size) in writes.items() if memory not in inside)
    return len({kernel(index) for index in range(len(operations))}), sum(reads.values()) + written


@dataclass(frozen=True)
class StepTraffic:
    """What one micro-batch costs."""

    forward: list[Operation]
    backward: list[Operation]
    gigaflop: float
    """Of the convolutions in the forward pass; the backward pass takes twice as much."""
    stored: Counter[str]
    """Bytes kept from the forward pass for the backward pass, by resolution. Weights that were joined are "other"."""

    @property
    def both(self) -> list[Operation]:
        """In the order in which they run."""
        return self.forward + self.backward


def step_traffic(preset: str, objective: str, precision: str, images: int = 1) -> StepTraffic:
    """Count one micro-batch of a preset's model (raises InputError for an unknown preset)."""
    values = read_presets(preset) | {"hps": preset, "alpha_T": OBJECTIVES[objective]}
    settings = apply_values(Settings(), values, "traffic.py")
    with torch.device("meta"):
        model = VeryDeepVAE(settings.model)
        levels = torch.zeros(images, *model.image_shape)
        noise = [torch.zeros(images, size, size, z).permute(0, 3, 1, 2) for z, size, _ in model.latent_shapes]
        image_noise = [torch.zeros(images, *shape) for shape in model.image_noise_shapes]
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    for part in (model.encoder.blocks, model.decoder.blocks, model.decoder.start_states):
        part.to(PRECISIONS[precision])  # the rest computes in float32, whatever the precision of a run
    levels = levels.to(memory_format=torch.channels_last)
    target = model.pixel_scale.target_from_levels(levels)

    def loss() -> Tensor:
        passed = model.infer(levels, noise, keep_contexts=OBJECTIVES[objective] > 0)
        return evaluate_objective(settings.objective, model, passed, target, 0.5, image_noise).total

    stored: dict[Memory, tuple[str, int]] = {}
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def store(tensor: Tensor) -> Tensor:
        memory, shape = tensor.untyped_storage(), tensor.shape
        if memory._cdata not in weights:
            resolution = str(shape[3]) if len(shape) == 4 and shape[0] == images and shape[2] == shape[3] else "other"
            stored.setdefault(memory._cdata, (resolution, memory.nbytes()))
        return tensor

    # The counter of FLOP does not know groups in a backward pass.
    with (
        FlopCounterMode(display=False) as flops,
        Recording() as forward,
        saved_tensors_hooks(store, lambda kept: kept),
    ):
        total = loss()
    with Recording() as backward:
        total.backward()
    by_resolution: Counter[str] = Counter()
    for resolution, size in stored.values():
        by_resolution[resolution] += size
    return StepTraffic(forward.operations, backward.operations, flops.get_total_flops() / 1e9, by_resolution)


def gigabytes(operations: Sequence[Operation]) -> float:
    """Read and written together, every operation by itself."""
    return sum(operation.bytes for operation in operations) / 1e9


def print_row(*cells: str) -> None:
    """One row of a Markdown table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def print_table(preset: str, images: int, kinds: int, memory: bool) -> None:
    """The steps of a preset, the most expensive kinds of operation of each, and what each stores."""
    print(f"{preset}, {images} image(s), torch {torch.__version__}\n")
    head = ("step", "kernels forward + backward", "GB", "fused: kernels", "GB", "GFLOP forward")
    print_row(*head, "LR adds kernels, GB, FLOP")
    print_row(*["---"] * (len(head) + 1))
    steps: dict[str, StepTraffic] = {}
    for precision in PRECISIONS:
        for objective in OBJECTIVES:
            step = steps[f"{objective}, {precision}"] = step_traffic(preset, objective, precision, images)
            plain = steps[f"ELBO, {precision}"]
            added = [
                len(step.both) / len(plain.both),
                gigabytes(step.both) / gigabytes(plain.both),
                step.gigaflop / plain.gigaflop,
            ]
            kernels, size = fused(step.both)
            print_row(
                f"{objective}, {precision}",
                f"{len(step.forward):,} + {len(step.backward):,}",
                f"{gigabytes(step.forward):.1f} + {gigabytes(step.backward):.1f}",
                f"{kernels:,}",
                f"{size / 1e9:.1f}",
                f"{step.gigaflop:,.1f}",
                ", ".join(f"{ratio - 1:.0%}" for ratio in added) if step is not plain else "-",
            )
    for name, step in steps.items() if kinds else ():
        print(f"\n{name}\n")
        print_row("operation", "kernels", "GB", "share of the bytes")
        print_row(*["---"] * 4)
        print_kinds(step.both, kinds)
    for name, step in steps.items() if memory else ():
        print(f"\n{name}: stored for the backward pass\n")
        print_row("resolution", "GB", "share")
        print_row(*["---"] * 3)
        print_stored(step.stored)


def print_stored(stored: Counter[str]) -> None:
    """What is stored at each resolution."""
    for resolution, size in stored.most_common():
        print_row(resolution, f"{size / 1e9:.3f}", f"{size / stored.total():.1%}")


def print_kinds(operations: Sequence[Operation], count: int) -> None:
    """The kinds of operation that move most bytes."""
    kernels = Counter(operation.kind for operation in operations)
    sizes: Counter[str] = Counter()
    for operation in operations:
        sizes[operation.kind] += operation.bytes
    for kind, size in sizes.most_common(count):
        print_row(kind, f"{kernels[kind]:,}", f"{size / 1e9:.2f}", f"{size / sizes.total():.0%}")


def main() -> int:
    """Count the steps that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ffhq256", help="preset in hps/ (default: ffhq256)")
    parser.add_argument("--images", type=int, default=1, help="images of the micro-batch (default: 1)")
    parser.add_argument("--kinds", type=int, nargs="?", const=12, default=0, help="show so many kinds (12)")
    parser.add_argument("--memory", action="store_true", help="show what is stored for the backward pass")
    options = parser.parse_args()
    if options.images < 1:
        parser.error("--images must be at least 1")
    try:
        print_table(options.preset, options.images, options.kinds, options.memory)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
