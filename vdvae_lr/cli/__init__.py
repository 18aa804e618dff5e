"""The command line: arguments and wiring only.

Importing it sets two variables of the environment, unless the user has set them. Torch and OpenMP read them once, when
torch is imported, so this has to come before.
"""

import os

# OpenMP's threads spin while they wait for each other. Where other programs take the cores, a run was then seen at a
# sixtieth of its speed. docs/benchmarks/cpu.md has the ratios.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# When a process of a run is lost, torch's warnings to the others are pages of C++ stack frames around our one sentence.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
