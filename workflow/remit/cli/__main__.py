"""``python -m remit.cli``, as a rank of a training is started."""

import sys

from remit.cli import main

if __name__ == "__main__":
    sys.exit(main())
