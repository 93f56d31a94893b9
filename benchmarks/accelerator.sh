#!/bin/sh
# Measures ebbtide on this machine's accelerators, in at most ten minutes:
#
#     sh benchmarks/accelerator.sh [FOLDER] [--small] [--seconds N] [--only SECTION ...]
#
# from a clean checkout, with a python3 (or $PYTHON) that has JAX for these accelerators and ebbtide's other
# requirements. Nothing is fetched. The last thing printed is one table; FOLDER (accelerator-results) gets it as data.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root/src${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH
exec "${PYTHON:-python3}" "$root/benchmarks/accelerator.py" "$@"
