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
jax.config.update(
    "jax_compilation_cache_dir",
    os.path.join(tempfile.gettempdir(), f"modal_aware_jax_tests_{getpass.getuser()}"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# A program runs once or twice here, so that making it costs more than running it.
jax.config.update("jax_disable_most_optimizations", True)

# Modules are initialised one array at a time, and each new shape is a program of its own
# for a second of work. The same numbers come from the first of a longer row of them.
for draw in ("normal", "truncated_normal", "uniform"):
    shared_programs.share(draw)

# Grain's worker processes read absl's flags, which pytest never parses.
absl.flags.FLAGS.mark_as_parsed()


@pytest.fixture
def key():
    """A typed random key."""
    return jax.random.key(0)
