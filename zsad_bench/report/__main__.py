"""``python -m zsad_bench.report``, see :mod:`zsad_bench.report.write`."""

import sys

from zsad_bench.report.write import main

if __name__ == "__main__":
    sys.exit(main())
