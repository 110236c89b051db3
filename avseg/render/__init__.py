"""Images that people look at: overlays, flow in colours, grids of results, film strips and timelines.

Colours are those of Okabe and Ito, which people with any common colour vision tell apart.
"""

from avseg.render.figures import MASK_COLOUR, OKABE_ITO, TRUTH_COLOUR, Colour, Mask, Picture
from avseg.render.images import GridRow, flow_colours, flow_wheel, overlay, qualitative_grid, write_labels
from avseg.render.strip import filmstrip, strip_moments, timeline

__all__ = [
    "MASK_COLOUR",
    "OKABE_ITO",
    "TRUTH_COLOUR",
    "Colour",
    "GridRow",
    "Mask",
    "Picture",
    "filmstrip",
    "flow_colours",
    "flow_wheel",
    "overlay",
    "qualitative_grid",
    "strip_moments",
    "timeline",
    "write_labels",
]
