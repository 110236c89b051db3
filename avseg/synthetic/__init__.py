"""The generated benchmark: scenes of cut-outs and recordings, written as raw videos in AVSBench's layout.

`write_benchmark` writes it, `read_benchmark` tells what one is, `baselines` scores what needs no training.
"""

from avseg.synthetic.knobs import EDITIONS, VERSION, Knobs, benchmark_hash, make_knobs
from avseg.synthetic.objects import ObjectSet, load_objects
from avseg.synthetic.write import BenchmarkInfo, read_benchmark, read_scenes, write_benchmark

__all__ = [
    "EDITIONS",
    "VERSION",
    "BenchmarkInfo",
    "Knobs",
    "ObjectSet",
    "benchmark_hash",
    "load_objects",
    "make_knobs",
    "read_benchmark",
    "read_scenes",
    "write_benchmark",
]
