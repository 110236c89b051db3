"""Settings of every test; its presence also lets tests say ``from helpers import …``."""

import os

# A spinning OpenMP pool slows everything down where other work shares the processors.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "10")
