"""`python -m attn_client.cli`."""

import sys

from attn_client.cli import main

sys.exit(main())
