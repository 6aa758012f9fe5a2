"""The one exception a user may see: a single line saying what was expected and what to type."""


class UserError(ValueError):
    """Bad input. Its message is one line; the command line prints it without a traceback."""


def choose(kind: str, value, accepted) -> None:
    """Refuse `value` unless it is one of `accepted`, naming all of them.

    Raises:
        UserError: with the accepted values listed in their own order.
    """
    accepted = list(accepted)
    if value not in accepted:
        names = ", ".join(map(str, accepted))
        raise UserError(f"unknown {kind} {value!r}: expected one of {names}")
