"""`python -m vdvae_lr COMMAND …` is `vdvae-lr COMMAND …`."""

import sys

from vdvae_lr.cli.start import vdvae_lr

if __name__ == "__main__":
    sys.exit(vdvae_lr())
