"""The words of a command as values, or one line that says what is wrong with them."""

from softprune.errors import UserError


def assignments(pairs: list[str]) -> dict[str, str]:
    """`["a=1", "b=x"]` -> `{"a": "1", "b": "x"}`.

    Raises:
        UserError: a pair without `=`, or a name twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        name, sep, value = pair.partition("=")
        if not sep or not name:
            raise UserError(f"-p {pair!r}: expected -p name=value")
        if name in values:
            raise UserError(f"-p {name} is given twice")
        values[name] = value
    return values


def typed(name: str, text: str, kind: type):
    """`text` as `kind` (bool, int, float or str).

    Raises:
        UserError: it is not one.
    """
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    try:
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError) as error:
        raise UserError(f"-p {name}={text}: expected {words[kind]}") from error


def sides(text: str) -> tuple[tuple[float, int], ...]:
    """`"0.25:16,0.6:24"` -> `((0.25, 16), (0.6, 24))`: smaller images in the first epochs.

    Args:
        text: `SHARE:PIXELS,...`, up to which share of the epochs images have that side; empty for
            images of their own size throughout.

    Raises:
        UserError: it is not that.
    """
    try:
        found = tuple((float(share), int(side)) for share, side in
                      (part.split(":") for part in text.split(",") if text))
    except ValueError:
        found = ((0.0, 0),)
    shares = [share for share, _ in found]
    rise = shares == sorted(set(shares)) and all(0 < share < 1 for share in shares)
    if not rise or any(side < 8 for _, side in found):  # less is nothing after three poolings
        raise UserError(f"-p sides={text}: expected SHARE:PIXELS,... with shares of the epochs "
                        "that rise from 0 to 1, and 8 pixels or more, as in sides=0.25:16,0.6:24")
    return found


def named(text: str) -> list[str]:
    """The words of a `CLASS,...`."""
    return [t.strip() for t in text.replace("+", ",").split(",") if t.strip()]


def check_classes(name: str, text: str, meta: dict | None, alone: bool = False) -> None:
    """Check the `CLASS,...` of an option against a data set, as far as it is here.

    Args:
        alone: each is a request of its own, so all may be named.
    """
    from softprune import catalog

    asked = named(text)
    if not asked:
        raise UserError(f"{name} {text!r} names no class: expected names or numbers joined by "
                        f"commas, or no {name} at all")
    if meta:
        names = tuple(meta["class_names"])
        for one in [[t] for t in asked] if alone else [asked]:
            catalog.class_indices(names, one, meta.get("aliases"))
