"""The one exception that is a person's to mend."""


class AvsegError(Exception):
    """A mistake in what was given: one sentence with the file or option at fault and the mend.

    The command line prints it without a traceback and exits with code 1. Characters that would break the line or
    steer a terminal, which names and values in files can have, are escaped.
    """

    def __str__(self) -> str:
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in super().__str__())
