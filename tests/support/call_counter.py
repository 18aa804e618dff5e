"""How often a module is called."""

from dataclasses import dataclass

from torch import nn


@dataclass
class Calls:
    count: int = 0


def count_calls(module: nn.Module) -> Calls:
    """A counter that `module` raises at each forward pass."""
    calls = Calls()

    def raise_count(*_: object) -> None:
        calls.count += 1

    module.register_forward_pre_hook(raise_count)
    return calls
