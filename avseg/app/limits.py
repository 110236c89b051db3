"""How much the page takes at a time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        seconds: Length of the stretch that is segmented.
        megabytes: Size of the file, in units of 2^20 bytes.
    """

    seconds: float = 120.0
    megabytes: float = 500.0
