"""What has to be settled before any test module is imported."""

import os
from pathlib import Path

# Triton reads this while it is being imported, and importing transformers imports Triton: too late for the folder that
# needs it. The driver's device file tells a GPU without importing torch.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")
