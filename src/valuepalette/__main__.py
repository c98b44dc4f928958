"""`python -m valuepalette` is `valuepalette`."""

import sys

from valuepalette.cli import main

if __name__ == "__main__":
    sys.exit(main())
