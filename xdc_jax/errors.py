"""The error that a user can act on."""


class UserError(Exception):
    """Something the user gave is wrong.

    The message names the file or key, what was found, what was expected and what to
    do. `xdc` prints it without a traceback and exits with status 2.
    """
