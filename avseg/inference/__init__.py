"""A video in, the sounding objects' masks out: streaming, results that are kept, and files of every kind."""

from avseg.inference.base import FPS, Segmenter, choose_device
from avseg.inference.moments import Moment, Smoothing
from avseg.inference.recording import Recording
from avseg.inference.result import Result
from avseg.inference.segmenter import AVSegmenter, shipped_model
from avseg.inference.video import SegmentReport, segment_video

__all__ = [
    "FPS",
    "AVSegmenter",
    "Moment",
    "Recording",
    "Result",
    "SegmentReport",
    "Segmenter",
    "Smoothing",
    "choose_device",
    "segment_video",
    "shipped_model",
]
