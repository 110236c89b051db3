"""The one exception that is a person's to mend."""


class AvsegError(Exception):
    """A mistake in what was given: one sentence with the file or option at fault and the mend.

    The command line prints it without a traceback and exits with code 1.
    """
