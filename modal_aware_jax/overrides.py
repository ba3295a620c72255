"""Command-line flags whose mistakes end in one line: `app.run(main, flags_parser=...)`.

ml_collections sets a locked config from `--config.some.key=value` while absl parses
the flags. A mistyped key is then a traceback; here it is a line with the nearest key.
"""

import difflib
import pathlib
import re
import sys
import traceback
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

PACKAGE = pathlib.Path(__file__).parent


class ArgumentError(ValueError):
    """A mistake in the arguments that a config file was given; told in one line."""


def parse_flags(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses absl's flags; a mistake is told in one line and exits with code 2.

    Hand it to absl: `app.run(main, flags_parser=parse_flags)`.

    Args:
        argv: the command line, the program first.
        values: the flags that were defined.

    Returns:
        The program and the arguments that are no flags.
    """
    try:
        rest = values(argv)
        for name in _config_flags(values):
            getattr(values[name].value, "lock", None)  # OSError of a missing file
        return rest
    except flags.UnrecognizedFlagError as error:
        _leave(_unknown_flag(error.flagname, list(values)))
    except (flags.Error, AttributeError, KeyError, OSError) as error:
        if (refusal := _refusal(error)) is not None:
            _leave(refusal)
        message = _explain(argv, values)
        if message is None and isinstance(error, AttributeError | KeyError):
            raise  # raised by the config file itself
        _leave(message or " ".join(str(error).split()))


def explain_override(config: ConfigDict, key: str, value: str) -> str | None:
    """What is wrong with setting a dotted key of a config to a text, or None.

    >>> config = ConfigDict({"steps": 100, "model": {"num_bits": 64}})
    >>> explain_override(config, "model.num_bit", "3")
    'unknown config key model.num_bit; did you mean model.num_bits?'
    >>> explain_override(config, "steps", "abc")
    "config key steps takes an int such as 100, not 'abc'"
    """
    keys = _keys(config)
    name = re.sub(r"\[[^]]*\]", "", key)  # an item of a tuple: layers[0]
    if name not in keys:
        nearest = _nearest(name, keys)
        return f"unknown config key {key}" + (
            f"; did you mean {nearest}?"
            if nearest
            else f"; the keys are {', '.join(key for key in keys if '.' not in key)}"
        )
    old = keys[name]
    if name != key or not isinstance(old, bool | int | float):
        return None
    try:
        parse = flags.BooleanParser().parse if isinstance(old, bool) else type(old)
        parse(value)
    except ValueError:
        kind = {bool: "true or false", int: "an int", float: "a float"}[type(old)]
        return f"config key {key} takes {kind} such as {old}, not {value!r}"
    return None


def _refusal(error: BaseException) -> str | None:
    """The message of a ValueError that was raised on purpose, or None.

    By a config file itself, or by what it called of this package.
    ml_collections repeats it with its traceback as text, and absl repeats that.
    """
    while error.__context__ is not None:
        error = error.__context__
    if isinstance(error, ArgumentError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    if not isinstance(error, ValueError) or not frames:
        return None
    called = any(frame.name == "get_config" for frame in frames)
    ours = PACKAGE in pathlib.Path(frames[-1].filename).parents
    if frames[-1].name == "get_config" or (called and ours):
        return str(error)
    return None


def _explain(argv: list[str], values: flags.FlagValues) -> str | None:
    for name in _config_flags(values):
        config = _load(name, values[name].default, argv)
        if isinstance(config, str):
            return config
        for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
            match = re.match(rf"--?{name}\.([^=]+)(?:=(.*))?$", argument, re.DOTALL)
            if match and config is not None:
                value = following if match[2] is None else match[2]
                message = explain_override(config, match[1], value)
                if message:
                    return message
    return None


def _load(name: str, value: Any, argv: list[str]) -> ConfigDict | str | None:
    """The config before its overrides, or what is wrong with its file."""
    for argument, following in zip(argv[1:], [*argv[2:], ""], strict=True):
        match = re.match(rf"--?{name}(?:=(.*))?$", argument, re.DOTALL)
        if match:
            value = following if match[1] is None else match[1]
    if not isinstance(value, str):
        return value
    config = config_flags.ConfigFileFlagParser(name).parse(value)
    if isinstance(config, ConfigDict):
        return config
    return f"--{name}: cannot find the config file {value}"


def _config_flags(values: flags.FlagValues) -> list[str]:
    return [name for name in values if config_flags.is_config_flag(values[name])]


def _keys(config: ConfigDict, prefix: str = "") -> dict:
    """All dotted keys, sections too, and what they hold."""
    keys = {}
    for name in config:
        value = config[name]
        keys[prefix + name] = value
        if isinstance(value, ConfigDict):
            keys.update(_keys(value, f"{prefix}{name}."))
    return keys


def _nearest(key: str, keys: dict) -> str | None:
    """The most similar key; else the only one with the same last name."""
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.75)
    last = [other for other in keys if other.split(".")[-1] == key.split(".")[-1]]
    near = near or last or difflib.get_close_matches(key, keys, n=1)
    return near[0] if near else None


def _unknown_flag(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean --{near[0]}?" if near else "; see --help"
    return f"unknown flag --{name}{hint}"


def _leave(message: str) -> None:
    print(message, file=sys.stderr)
    sys.exit(2)
