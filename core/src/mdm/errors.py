"""The one exception a user is meant to read."""


class MdmError(Exception):
    """A mistake in what was asked: one line that names the culprit and the way out.

    The command line prints it without a traceback and exits with code 2.
    """
