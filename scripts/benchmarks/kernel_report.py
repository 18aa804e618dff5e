"""Compile the likelihood's Triton kernel for GPUs that this machine need not have, and say what it takes there.

    python scripts/benchmarks/kernel_report.py                    ffhq256, for A100 (sm_80) and H100 (sm_90)
    python scripts/benchmarks/kernel_report.py --preset cifar10

It prints registers and spills, as ptxas reports them for the kernel that Triton compiles, and the threads for which a
multiprocessor has registers. The bytes of a pixel are those that the kernel must read and write, beside those that the
operations of the plain formula read and write, counted as in traffic.py. Nothing runs, so there are no times. Triton
comes with torch for CUDA, and with the extra dev on Linux x86-64.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from traffic import Recording, print_row

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.cli.shared.config import settings_of_presets
from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture, parameters_per_component
from vdvae_lr.model.vdvae.vae import VAEConfig, VeryDeepVAE

ARCHITECTURES = {80: "A100", 90: "H100"}
REGISTERS = 65_536  # of a multiprocessor of either
_WARP = 32


def inputs(config: VAEConfig, *, channels_last: bool) -> tuple[Tensor, Tensor, Bins]:
    """The kernel's inputs for one image, without content."""
    numbers = config.num_mixtures * parameters_per_component(config.image_channels)
    with torch.device("meta"):
        bins = VeryDeepVAE(config).bins
        both = [
            torch.empty(1, count, config.image_size, config.image_size) for count in (numbers, config.image_channels)
        ]
    if channels_last:
        both = [values.to(memory_format=torch.channels_last) for values in both]
    return both[0], both[1], bins


def compiled(arguments: Mapping[str, Any], architecture: int) -> tuple[int, int]:
    """Registers of a thread and bytes that it spills, of the kernel that Triton makes for these arguments."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vdvae_lr.model.mixture_kernel import WARPS, mixture_kernel

    # As Triton's launcher does: a 1 becomes a constant, and multiples of 16 are known as such.
    constants = {name: value for name, value in arguments.items() if name.isupper() or _is(value, 1)}
    types = {name: "*fp32" if isinstance(value, Tensor) else "i32" for name, value in arguments.items()}
    known = {
        (place,): [["tt.divisibility", 16]]
        for place, (name, value) in enumerate(arguments.items())
        if isinstance(value, Tensor) or (name not in constants and value % 16 == 0)
    }
    source = ASTSource(mixture_kernel, types | dict.fromkeys(constants, "constexpr"), constants, known)
    kernel = triton.compile(source, target=GPUTarget("cuda", architecture, _WARP), options={"num_warps": WARPS})
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder, "kernel.ptx")
        code.write_text(kernel.asm["ptx"], encoding="utf-8")
        suffix = "a" if architecture >= 90 else ""
        command = [triton.knobs.nvidia.ptxas.path, "-v", f"-arch=sm_{architecture}{suffix}", str(code)]
        said = subprocess.run([*command, "-o", f"{folder}/kernel"], capture_output=True, text=True, check=True).stderr
    registers = re.findall(r"Used (\d+) registers", said)
    spilled = re.findall(r"(\d+) bytes spill (?:stores|loads)", said)
    return int(registers[0]), sum(map(int, spilled))


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int) and value == number


def bytes_of_a_pixel(parameters: Tensor, image: Tensor, bins: Bins) -> tuple[int, int, int]:
    """What the kernel must read and write; what the plain formula's operations do; and how many those are.

    Before either, a mixture clamps the log-scales and takes tanh of the coefficients; that is in neither.
    """
    mixture = LogisticMixture(parameters, image.shape[1], bins)
    with Recording() as recording:
        mixture.with_slopes(image)
    pixels = image[0, 0].numel()
    kernel = 4 * (2 * parameters.shape[1] + image.shape[1] + 1)
    return kernel, sum(operation.bytes for operation in recording.operations) // pixels, len(recording.operations)


def print_report(preset: str) -> None:
    """The tables of a preset (raises InputError for an unknown preset, and for one without this likelihood)."""
    config = settings_of_presets(preset).model
    if not isinstance(config, VAEConfig):
        raise InputError(f"preset {preset} has no discretised logistic mixture; choose one such as ffhq256.")
    import triton

    from vdvae_lr.model.mixture_kernel import WARPS, arguments

    print(f"{preset}, 1 image, torch {torch.__version__}, triton {triton.__version__}\n")
    print_row("for", "layout", "registers of a thread", "bytes spilled", "threads of a multiprocessor, of 2,048")
    print_row(*["---"] * 5)
    for architecture, card in ARCHITECTURES.items():
        for layout in ("channels last", "channels first"):
            given = inputs(config, channels_last=layout == "channels last")
            registers, spilled = compiled(arguments(*given), architecture)
            threads = WARPS * _WARP
            resident = REGISTERS // (-(-registers // 8) * 8 * threads) * threads  # registers are given out by eights
            cells = (str(registers), str(spilled), f"{min(2048, resident):,}")
            print_row(f"sm_{architecture} ({card})", layout, *cells)
    kernel, plain, operations = bytes_of_a_pixel(*inputs(config, channels_last=True))
    print(f"\nBytes of a pixel: kernel {kernel:,}; plain formula {plain:,} in {operations} operations.")


def main() -> int:
    """Report on the preset that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="ffhq256", help="preset in hps/ (default: ffhq256)")
    options = parser.parse_args()
    try:
        print_report(options.preset)
    except ImportError:
        print("error: this needs Triton; on Linux x86-64 install the extra dev.", file=sys.stderr)
        return EXIT_INPUT_ERROR
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
