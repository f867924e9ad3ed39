"""The one exception that speaks to the user."""


class IcsbenchError(Exception):
    """Something the user can put right: one line saying what is wrong, where, and what would be right.

    The command line prints the message after ``icsbench: `` without a traceback and exits with 1.
    """


class TypedWrongly(IcsbenchError):
    """A value of an option that cannot be: as :class:`IcsbenchError`, but the command line exits with 2."""
