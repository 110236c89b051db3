"""``python -m avseg`` is the command ``avseg``."""

import sys

from avseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
