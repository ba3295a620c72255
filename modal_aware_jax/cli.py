"""What the package's commands share: two flags, and one line for every mistake.

A command is a module with flags of its own and `run(args)`:

    from modal_aware_jax import cli

    if __name__ == "__main__":
        cli.start(run)
"""

import sys
from collections.abc import Callable

from absl import app, flags, logging
from ml_collections import config_flags

from modal_aware_jax.overrides import parse_flags
from modal_aware_jax.training.errors import RunError, WorkdirError

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The experiment: configs/NAME.py.")
flags.DEFINE_string("workdir", None, "Where everything goes; a folder in runs/.")


def start(run: Callable) -> None:
    """Parses the flags, calls `run(flags)`, and leaves with the error's exit code.

    A ValueError (2), a RunError (its own) and the operating system's refusals (5) are
    told in one line, without a traceback; Ctrl-C leaves with 130.
    """

    def main(argv):
        logging.set_verbosity(logging.WARNING)  # Orbax tells every step otherwise
        try:
            if argv[1:]:
                raise ValueError(
                    f"{argv[1]!r} is no flag. Values follow their flag's name, as in "
                    "--workdir=runs/mine."
                )
            run(FLAGS)
        except (ValueError, RunError) as error:
            print(f"Error: {error}", file=sys.stderr)
            sys.exit(getattr(error, "exit_code", 2))
        except OSError as error:
            print(
                f"Error: {error}. What was finished before is kept: when the cause is "
                "mended, give the same command again.",
                file=sys.stderr,
            )
            sys.exit(WorkdirError.exit_code)
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            sys.exit(130)

    app.run(main, flags_parser=parse_flags)


def needed_config(args):
    """The config, or a ValueError that says how to name one."""
    if args.config is None:
        raise ValueError("Name an experiment, for example --config=configs/shapes.py.")
    return args.config
