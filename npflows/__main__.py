"""`python -m npflows` is the command `npflows`."""

import sys

from npflows.cli import main

if __name__ == "__main__":
    sys.exit(main())
