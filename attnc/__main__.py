"""``python -m attnc``: the same door as the ``attnc`` command."""

from __future__ import annotations

import sys

from attnc.cli import main

if __name__ == "__main__":
    sys.exit(main())
