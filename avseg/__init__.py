"""avseg: audio-visual segmentation with unlabeled frame exploitation.

Importing this package is quick: the names below are loaded when they are first used.
"""

import os

# PyTorch's OpenMP threads spin while they wait. On a busy machine with few cores that costs
# 4 to 20 times the work itself; it must be set before torch is imported anywhere.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
