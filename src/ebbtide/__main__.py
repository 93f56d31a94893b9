"""`python -m ebbtide`."""

import sys

from ebbtide.cli import main

if __name__ == "__main__":
    sys.exit(main())
