"""Settings every test runs under."""

import getpass
import os
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import absl.flags  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

# Broadcasting over a missing axis is a mistake until spelled out.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs compiled by an earlier run are read back.
jax.config.update(
    "jax_compilation_cache_dir",
    os.path.join(tempfile.gettempdir(), f"modal_aware_jax_tests_{getpass.getuser()}"),
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Grain's worker processes read absl's flags, which pytest never parses.
absl.flags.FLAGS.mark_as_parsed()


@pytest.fixture
def key():
    """A typed random key."""
    return jax.random.key(0)
