"""``python -m arcdist VERB key=value …``."""

import sys

from arcdist.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
