"""The command line: arguments and wiring only.

Importing this package sets two environment variables, unless the user has set them. Torch and OpenMP read them when
torch is imported, so the package must be imported before torch.
"""

import os

# OpenMP's threads spin while they wait for each other. When other programs used the cores, this slowed a run down by a
# factor of up to 60 (docs/benchmarks/cpu.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# When a run loses a process, torch prints pages of C++ stack frames in the others, around our one sentence.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
