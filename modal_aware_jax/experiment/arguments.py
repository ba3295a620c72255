"""The arguments after a config file's colon: `configs/flickr.py:method=gmu,bits=32`."""

import difflib

from modal_aware_jax.overrides import ArgumentError


def parse_arguments(text: str, /, **defaults) -> dict:
    """`name=value` pairs between commas, each optional, by the types of their defaults.

    Args:
      text: what stands after the colon.
      **defaults: the argument's value where it is not given: an int where the argument
        is a whole number; a tuple of names where it is one of them, the first of which
        is the default.

    Example:
      >>> parse_arguments("bits=32", method=("ours", "theirs"), bits=64)
      {'method': 'ours', 'bits': 32}
      >>> parse_arguments("metod=theirs", method=("ours", "theirs"))
      Traceback (most recent call last):
      ...
      modal_aware_jax.overrides.ArgumentError: config argument 'metod' is unknown; \
did you mean 'method'? The arguments are method=NAME.
    """
    values = {
        name: default[0] if isinstance(default, tuple) else default
        for name, default in defaults.items()
    }
    known = ", ".join(
        f"{name}={'NAME' if isinstance(default, tuple) else 'NUMBER'}"
        for name, default in defaults.items()
    )
    given = set()
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = (part.strip() for part in pair.partition("="))
        if not separator:
            raise ArgumentError(
                f"config argument {pair!r} is no name=value; the arguments are {known}."
            )
        if name not in defaults:
            hint = _hint(name, defaults)
            raise ArgumentError(
                f"config argument {name!r} is unknown{hint} The arguments are {known}."
            )
        if name in given:
            raise ArgumentError(f"config argument {name!r} is given twice in {text!r}.")
        given.add(name)
        values[name] = _value(name, value, defaults[name])
    return values


def _value(name, value, default):
    if isinstance(default, tuple):
        names = dict.fromkeys(default)
        if value not in names:
            hint = _hint(value, names)
            raise ArgumentError(
                f"config argument {name}={value} is unknown{hint} Known: "
                f"{', '.join(names)}."
            )
        return value
    if not value.isdecimal():
        raise ArgumentError(
            f"config argument {name} takes a whole number such as {default}, not "
            f"{value!r}."
        )
    return int(value)


def _hint(name, known):
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."
