"""Settings every test runs under."""

import getpass
import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import absl.flags  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
import shared_programs  # noqa: E402

# Broadcasting over a missing axis is a mistake until spelled out.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs compiled by an earlier run are read back.
CACHE = os.path.join(
    tempfile.gettempdir(), f"modal_aware_jax_tests_{getpass.getuser()}"
)
SETTINGS = {
    "jax_compilation_cache_dir": CACHE,
    "jax_persistent_cache_min_compile_time_secs": 0.2,
}
# A program of the fast suite runs once or twice: making it costs more than running it.
FAST_SETTINGS = {"jax_disable_most_optimizations": True}

# Modules are initialised one array at a time, and each new shape is a program of its
# own, a second of work. The same numbers come from the first of a longer row of them.
for draw in ("normal", "truncated_normal", "uniform"):
    shared_programs.share(draw)

# Grain's worker processes read absl's flags, which pytest never parses.
absl.flags.FLAGS.mark_as_parsed()


def pytest_configure(config):
    """Settings of JAX, for the programs that the tests start, too."""
    fast = "not slow" in config.option.markexpr
    for name, value in (SETTINGS | (FAST_SETTINGS if fast else {})).items():
        jax.config.update(name, value)
        os.environ.setdefault(name.upper(), str(value))


@pytest.fixture
def key():
    """A typed random key."""
    return jax.random.key(0)
