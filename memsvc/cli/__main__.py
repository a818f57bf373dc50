"""`python -m memsvc.cli` is `memsvc`."""

import sys

from memsvc.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
