"""One frame of a data set and the files that belong to it, whichever layout it is in."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from avseg.config import InputConfig
from avseg.data.avsbench import (
    DistantFrame,
    DistantLayout,
    FlowSource,
    Layout,
    Video,
    load_clip,
    load_distant_clip,
)
from avseg.data.clip import Clip
from avseg.media.flow import FlowMethod


@dataclass(frozen=True)
class Still:
    """One frame.

    Attributes:
        layout: A `Layout` for a video, a `DistantLayout` for one of MS3's distant frames. Names may recur between
            layouts, so that only the two together tell a source.
        source: The video, or the distant frame.
        k: The frame's number; 1 for a distant frame.
        labelled: Whether its mask is used.
    """

    layout: Layout | DistantLayout
    source: Video | DistantFrame
    k: int = 1
    labelled: bool = False

    @cached_property
    def image(self) -> Path:
        """The picture."""
        if isinstance(self.source, Video):
            return self._videos.frame(self.source, self.k)
        return self._distant.image(self.source)

    @cached_property
    def name(self) -> str:
        """The picture's path below its layout's folder, which no other frame there has."""
        return self.image.relative_to(self.layout.folder).as_posix()

    def flow(self, method: FlowMethod = "farneback") -> Path:
        """Our flow."""
        if isinstance(self.source, Video):
            return self._videos.flow(self.source, self.k, method)
        return self._distant.flow(self.source, method)

    @property
    def published_flow(self) -> tuple[Path, Path]:
        """UFE's flow, ``u`` and ``v``."""
        if isinstance(self.source, Video):
            return self._videos.published_flow(self.source, self.k)
        return self._distant.published_flow(self.source)

    @property
    def log_mel(self) -> Path:
        """The sound."""
        if isinstance(self.source, Video):
            return self._videos.log_mel(self.source)
        return self._distant.log_mel(self.source)

    @property
    def mask(self) -> Path:
        """The published mask, which only a labelled frame has."""
        assert isinstance(self.source, Video)
        return self._videos.mask(self.source, self.k)

    @property
    def _videos(self) -> Layout:
        assert isinstance(self.layout, Layout)
        return self.layout

    @property
    def _distant(self) -> DistantLayout:
        assert isinstance(self.layout, DistantLayout)
        return self.layout


def load_stills(stills: Sequence[Still], inputs: InputConfig, flow: FlowSource, hidden: bool = False) -> Clip:
    """Frames of one source as a clip, read from their files; masks of those alone that are labelled.

    Args:
        stills: Frames.
        inputs: Size, resize and flow bound.
        flow: Which flow.
        hidden: Also read the masks that only the generated benchmark has; for diagnostics.

    Raises:
        AvsegError: a file is missing, unreadable or of the wrong size.
    """
    layout, source = stills[0].layout, stills[0].source
    if isinstance(source, DistantFrame):
        assert isinstance(layout, DistantLayout)
        return load_distant_clip(layout, source, inputs, flow)
    assert isinstance(layout, Layout)
    labelled = [still.k for still in stills if still.labelled]
    return load_clip(layout, source, [still.k for still in stills], inputs, flow, hidden, labelled)
