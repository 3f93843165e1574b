"""Start the benchmark of select, which is in parts/select_table.py: in this folder a module of this name stands before
the library's own.

python benchmarks/select.py [--rows 5000000] [--repeats 2] [--beam-rows 50000] [--curve 1000000,10000000]
"""

import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))
PATH = sys.path[:]
sys.path[:] = [place for place in sys.path if os.path.abspath(place) != FOLDER]

if __name__ == "__main__":
    import runpy

    runpy.run_path(os.path.join(FOLDER, "parts", "select_table.py"), run_name="__main__")
else:  # what another benchmark imports asks for the library's module: that is what it gets
    sys.modules.pop(__name__)
    import select  # noqa: F401

    sys.path[:] = PATH
