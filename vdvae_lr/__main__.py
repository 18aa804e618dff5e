"""`python -m vdvae_lr COMMAND …` is `vdvae-lr COMMAND …`."""

import sys

from vdvae_lr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
