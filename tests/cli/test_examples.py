"""The example of each command's --help works on the bundled models, in the order in which the help lists them."""

from pathlib import Path

import pytest

from vdvae_lr.cli.main import COMMANDS, main

ELSEWHERE = {"train", "app", "push", "verify", "quality"}
"""Run by other tests: the quick start, the page in a browser, the Hub on loopback. The last two take a download."""


@pytest.mark.slow
def test_every_example_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in COMMANDS if name not in ELSEWHERE]:
        assert main([name, *COMMANDS[name].example.split()]) == 0, name
    made = {"measured", "compared", "noise", "samples", "samples.png", "weights", "copy", "traverse.webp", "swap.png"}
    assert made <= {path.name for path in tmp_path.iterdir()}
