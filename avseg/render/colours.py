"""The colours of every image, and what an image and a mask are."""

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

OKABE_ITO: dict[str, Colour] = {
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "bluish green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "blue": (0, 114, 178),
    "vermillion": (213, 94, 0),
    "reddish purple": (204, 121, 167),
    "black": (0, 0, 0),
}
MASK_COLOUR = OKABE_ITO["sky blue"]  # what makes a sound is more often brown, red or green
TRUTH_COLOUR = OKABE_ITO["yellow"]


def hexadecimal(colour: Colour) -> str:
    """``(86, 180, 233)`` as ``#56b4e9``, which matplotlib and CSS read."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
