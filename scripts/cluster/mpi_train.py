"""train.py for scripts/cluster/mpiexec.sh: a process that ends without error creates the file DONE_FILE.

Open MPI 5.0's mpiexec also ends with 0 when it loses a machine (seen with 5.0.11), so its exit code proves nothing.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from vdvae_lr.cli.start import train

if __name__ == "__main__":
    code = train()
    if code == 0:
        Path(os.environ["DONE_FILE"]).touch()
    sys.exit(code)
