"""No test meets the network, or anybody's cache, but through a server of its own.

Import this before huggingface_hub, which reads these variables once.
"""

import atexit
import os
import shutil
import tempfile

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": tempfile.mkdtemp(prefix="vdvae_lr-tests-hf-")}
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
for name in ("VDVAE_LR_MIRROR", "VDVAE_LR_REPOSITORY"):
    os.environ.pop(name, None)
