"""What goes to a GPU, decided on facts alone."""

from __future__ import annotations

import os

import pytest

from ltm_edge.engine.offload import DeviceInfo, ModelFacts, plan_offload
from ltm_edge.engine.options import EngineOptions, bounded_threads
from ltm_edge.errors import InputError

GIB = 1 << 30
CPU = DeviceInfo("CPU", "a processor", "cpu", 16 * GIB, 16 * GIB)
BIG = DeviceInfo("CUDA0", "a large card", "gpu", 24 * GIB, 24 * GIB)
SMALL = DeviceInfo("CUDA1", "a small card", "gpu", 4 * GIB, 4 * GIB)
SHARED = DeviceInfo("Vulkan0", "a built-in one", "igpu", 8 * GIB, 8 * GIB)
# About what a 7B model in 4 bits has.
FACTS = ModelFacts(weights=4 * GIB, layers=32, embedding=4096, kv_width=2 * 1024, vocabulary=32000)


def plan(request, devices, device=None, n_ctx=4096, kv_type="f16"):
    return plan_offload(request, device, devices, FACTS, n_ctx=n_ctx, kv_type=kv_type)


def test_auto_without_gpu_runs_on_the_cpu_quietly():
    result = plan("auto", [CPU])
    assert (result.layers, result.notice) == (0, None)
    assert "CPU" in result.line


@pytest.mark.parametrize("request_", ["all", 12])
def test_asking_for_a_gpu_on_a_cpu_build_is_answered(request_):
    result = plan(request_, [CPU])
    assert result.layers == 0
    assert result.notice is not None and "CPU only" in result.notice and "GGML_CUDA" in result.notice


def test_auto_takes_everything_that_fits():
    result = plan("auto", [CPU, BIG])
    assert result.layers == FACTS.layers + 1
    assert result.devices == ("CUDA0",)


def test_auto_takes_a_part_when_not_all_fits_and_less_with_more_context():
    part = plan("auto", [CPU, SMALL]).layers
    assert 0 < part < FACTS.layers
    assert plan("auto", [CPU, SMALL], n_ctx=65536).layers < part
    assert (
        plan("auto", [CPU, SMALL], n_ctx=65536, kv_type="q8_0").layers > plan("auto", [CPU, SMALL], n_ctx=65536).layers
    )


def test_auto_prefers_a_real_gpu_to_shared_memory():
    assert plan("auto", [CPU, SHARED, BIG]).devices == ("CUDA0",)
    assert plan("auto", [CPU, SHARED]).devices == ("Vulkan0",)


def test_a_full_gpu_is_said():
    full = DeviceInfo("CUDA0", "a busy card", "gpu", GIB // 8, 24 * GIB)
    result = plan("auto", [CPU, full])
    assert result.layers == 0 and result.notice is not None and "128 MiB" in result.notice


def test_numbers_are_capped_and_zero_means_cpu():
    assert plan(999, [CPU, BIG]).layers == FACTS.layers + 1
    assert plan(0, [CPU, BIG]) == plan(0, [CPU])


def test_devices_are_chosen_by_name_in_any_case():
    assert plan("all", [CPU, BIG, SMALL], device="cuda1").devices == ("CUDA1",)
    assert plan("auto", [CPU, BIG], device="CPU").layers == 0
    with pytest.raises(InputError, match="available: CPU, CUDA0"):
        plan("auto", [CPU, BIG], device="CUDA7")


@pytest.mark.parametrize(
    "values",
    [{"gpu_layers": "some"}, {"gpu_layers": -1}, {"threads": 0}, {"ctx": 1}, {"flash_attn": "yes"}, {"kv_type": "q3"}],
)
def test_options_out_of_range_are_refused(values):
    with pytest.raises(InputError, match=next(iter(values))):
        EngineOptions(**values)


def test_there_are_never_more_threads_than_processors():
    """llama.cpp's threads spin while they wait: a thousand of them on two processors come to no end."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert bounded_threads(1) == 1
    assert bounded_threads(1024) == usable
    assert 1 <= bounded_threads(None) <= usable
