"""``python -m optlab.train``; see :mod:`optlab.train.command`."""

import sys

from optlab.train.command import main

if __name__ == "__main__":
    sys.exit(main())
