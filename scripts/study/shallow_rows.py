"""The rows of the paper's Tables 1 to 4 with the paper's numbers (Song, Kim, Lee, arXiv 2508.12530)."""

from collections.abc import Mapping
from dataclasses import dataclass

Numbers = tuple[float, float, float]
"""Share of active units, KL in nats an image, mutual information in nats (batches of 50)."""


@dataclass(frozen=True)
class Row:
    """One method with its settings."""

    preset: str
    """In hps/shallow."""
    title: str
    paper: Mapping[int, Numbers]
    """By table."""


@dataclass(frozen=True)
class DataSet:
    """The images of a table."""

    name: str
    """As --dataset takes it."""
    overlay: str
    """The preset that goes behind a row's; empty: the rows' own."""
    numbers: int
    """Numbers of an image."""


DATA_SETS: Mapping[int, DataSet] = {
    1: DataSet("fashion", "", 784),
    2: DataSet("mnist", "on_mnist", 784),
    3: DataSet("omniglot", "on_omniglot", 784),
    4: DataSet("celeba", "on_celeba", 12_288),
}
PROTOCOLS = {"full": "", "reduced": "reduced"}
"""By name: the preset that goes behind the others."""

ROWS = (
    Row("vae", "VAE", {1: (0.13, 7.10, 3.84), 2: (0.16, 8.69, 3.96), 3: (0.06, 2.32, 2.11), 4: (0.47, 40.87, 3.85)}),
    Row(
        "sa_vae",
        "SA-VAE",
        {1: (0.13, 6.89, 3.77), 2: (0.19, 9.26, 3.91), 3: (0.09, 2.80, 2.45), 4: (0.67, 45.16, 3.88)},
    ),
    Row(
        "lagging_vae",
        "Lagging VAE",
        {1: (0.16, 7.27, 3.79), 2: (0.19, 9.18, 3.84), 3: (0.06, 2.23, 2.03), 4: (0.63, 42.46, 3.96)},
    ),
    Row(
        "beta_0.1",
        "β-VAE, β 0.1",
        {1: (0.22, 18.12, 3.93), 2: (0.68, 32.40, 3.90), 3: (0.85, 30.05, 3.93), 4: (0.99, 137.20, 3.90)},
    ),
    Row(
        "beta_0.2",
        "β-VAE, β 0.2",
        {1: (0.19, 13.78, 3.84), 2: (0.38, 23.48, 3.93), 3: (0.52, 18.24, 3.86), 4: (0.99, 85.46, 3.92)},
    ),
    Row("beta_0.4", "β-VAE, β 0.4", {1: (0.16, 10.54, 3.91), 2: (0.33, 16.52, 3.92), 3: (0.22, 11.33, 3.91)}),
    Row(
        "lidvae",
        "LIDVAE",
        {1: (0.42, 25.15, 3.88), 2: (0.94, 50.70, 3.90), 3: (0.99, 15.02, 3.85), 4: (1.00, 307.72, 3.99)},
    ),
    Row("il_lidvae_0.1", "IL-LIDVAE, L 0.1", {1: (0.80, 49.54, 3.92), 2: (0.96, 70.19, 3.85)}),
    Row(
        "il_lidvae_0.2",
        "IL-LIDVAE, L 0.2",
        {1: (0.72, 54.68, 3.93), 2: (0.88, 69.59, 3.90), 3: (0.93, 26.24, 3.88), 4: (1.00, 336.86, 3.88)},
    ),
    Row("il_lidvae_0.4", "IL-LIDVAE, L 0.4", {1: (0.72, 67.35, 3.92), 2: (0.94, 89.83, 3.89)}),
    Row("il_lidvae_0.8", "IL-LIDVAE, L 0.8", {3: (0.97, 109.73, 3.93)}),
    Row("il_lidvae_1", "IL-LIDVAE, L 1", {3: (0.45, 120.17, 3.88), 4: (0.97, 458.54, 3.84)}),
    Row("lrvae_1_beta_0.1", "LRVAE, α 1, β 0.1", {1: (0.95, 45.23, 3.86)}),
    Row("lrvae_1_beta_0.2", "LRVAE, α 1, β 0.2", {1: (0.93, 33.36, 3.99)}),
    Row("lrvae_0.4_beta_0.1", "LRVAE, α 0.4, β 0.1", {2: (1.00, 45.20, 3.84)}),
    Row("lrvae_0.4_beta_0.2", "LRVAE, α 0.4, β 0.2", {2: (0.99, 32.80, 3.90)}),
    Row("lrvae_0.1", "LRVAE, α 0.1", {3: (0.13, 3.68, 2.76)}),
    Row("lrvae_0.4", "LRVAE, α 0.4", {2: (0.22, 11.92, 3.91), 3: (0.77, 6.18, 3.26)}),
    Row("lrvae_0.8", "LRVAE, α 0.8", {4: (1.00, 63.89, 3.92)}),
    Row("lrvae_1", "LRVAE, α 1", {1: (0.41, 12.41, 3.77), 2: (0.66, 14.85, 3.90), 3: (0.86, 7.84, 3.32)}),
)


def rows_of(table: int) -> list[Row]:
    """The rows of a table, in the paper's order."""
    return [row for row in ROWS if table in row.paper]


def presets(row: Row, table: int, protocol: str) -> str:
    """What --hps takes."""
    names = (row.preset, DATA_SETS[table].overlay, PROTOCOLS[protocol])
    return ",".join(f"shallow/{name}" for name in names if name)
