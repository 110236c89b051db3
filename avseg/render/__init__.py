"""Images that people look at: overlays, flow in colours, grids of results, film strips and timelines.

Colours are those of Okabe and Ito, which people with any common colour vision tell apart.
"""

from avseg.render.colours import MASK_COLOUR, OKABE_ITO, TRUTH_COLOUR, Colour, Mask, Picture
from avseg.render.flow import flow_colours, flow_wheel
from avseg.render.grid import Moment, qualitative_grid
from avseg.render.marks import overlay
from avseg.render.strip import filmstrip, strip_moments
from avseg.render.timelines import timeline

__all__ = [
    "MASK_COLOUR",
    "OKABE_ITO",
    "TRUTH_COLOUR",
    "Colour",
    "Mask",
    "Moment",
    "Picture",
    "filmstrip",
    "flow_colours",
    "flow_wheel",
    "overlay",
    "qualitative_grid",
    "strip_moments",
    "timeline",
]
