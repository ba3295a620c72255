"""Settings every test runs under."""

import contextlib
import ctypes
import gc
import getpass
import os
import pathlib
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")


def one_core_each():
    """Gives every worker of pytest-xdist a core: threads that wait spend its time."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if not worker or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= int(os.environ["PYTEST_XDIST_WORKER_COUNT"]):
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw"))]})
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")


one_core_each()  # before any library counts the cores

import absl.flags  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
import shared_programs  # noqa: E402

# Broadcasting over a missing axis is a mistake until spelled out.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Programs compiled by another worker or an earlier run are read back.
CACHE = os.path.join(
    tempfile.gettempdir(), f"modal_aware_jax_tests_{getpass.getuser()}"
)
SETTINGS = {
    "jax_compilation_cache_dir": CACHE,
    "jax_persistent_cache_min_compile_time_secs": 0.2,
}
# A program of the fast suite runs once or twice: making it costs more than running it.
FAST_SETTINGS = {"jax_disable_most_optimizations": True}
# XLA's older code for loops is made in half the time; newer versions have it no more.
OLD_JAX = jax.__version_info__ < (0, 11)
LOOPS = "xla_cpu_use_fusion_emitters"

# Bytes: programs are forgotten beyond MAX_RESIDENT, and once GROWTH more have come.
MAX_RESIDENT, GROWTH = 1.2e9, 2e8

# Modules are initialised one array at a time, and each new shape is a program of its
# own, a second of work. The same numbers come from the first of a longer row of them.
for draw in ("normal", "truncated_normal", "uniform"):
    shared_programs.share(draw)
shared_programs.write_entries_at_once()

# Grain's worker processes read absl's flags, which pytest never parses.
absl.flags.FLAGS.mark_as_parsed()


def pytest_configure(config):
    """Settings of JAX, for the programs that the tests start, too."""
    # A fixture of this folder would not know the examples in docstrings.
    config.pluginmanager.register(BoundedMemory())
    settings = SETTINGS | (FAST_SETTINGS if _is_fast(config) else {})
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ.setdefault(name.upper(), str(value))
    # Programs that the tests start may be killed, so they write few entries.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    if _is_fast(config) and OLD_JAX:  # XLA reads them with its first program
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --{LOOPS}=false".strip()


def _is_fast(config):
    return "not slow" in config.option.markexpr


@pytest.fixture
def optimized_programs(pytestconfig):
    """All of XLA's passes, for tests of what they make of a program.

    The value is for the `compiler_options` of the program's jit.
    """
    jax.config.update("jax_disable_most_optimizations", False)
    yield {LOOPS: True} if OLD_JAX else {}
    jax.config.update("jax_disable_most_optimizations", _is_fast(pytestconfig))


class BoundedMemory:
    """Forgets programs once they are many: the cache on disk has them still."""

    left = 0  # bytes that were resident without them

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self):
        if resident_bytes() > max(MAX_RESIDENT, self.left + GROWTH):
            jax.clear_caches()
            gc.collect()
            with contextlib.suppress(OSError, AttributeError):  # another C library
                ctypes.CDLL("libc.so.6").malloc_trim(0)
            self.left = resident_bytes()


def resident_bytes():
    """Memory of this process, 0 where the system does not say."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def key():
    """A typed random key."""
    return jax.random.key(0)
