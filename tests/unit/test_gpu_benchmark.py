"""The benchmark for GPUs runs as a whole on a CPU, and no part can spoil another."""

import json
import os
import sys
import time

import pytest
import torch

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.kernels import covered, kind_of
from benchmarks.gpu.part import NotHere, run_part
from benchmarks.gpu.scale import TOY
from benchmarks.gpu.targets import TARGETS, check_targets
from tools.device_rates import measured_rates


def test_every_part_and_every_target_is_measured_on_a_cpu(run, tmp_path):
    file = tmp_path / "toy.json"
    run(sys.executable, "-m", "benchmarks.gpu", "--toy", "--result", file)
    result = json.loads(file.read_text())
    assert result["toy"]
    for name, found in result["parts"].items():
        assert "error" not in found, (name, found)
    rows = {row["target"]: row for row in result["targets"]}
    assert [name for name, row in rows.items() if row["value"] is None] == []
    assert all(rate > 0 for rate in measured_rates(result)[:3])  # as tools.plan reads it
    for name in ("weights after kills identical", "decoders lossless in float32"):
        assert rows[name]["met"], name  # these hold on a CPU as well


def test_a_toys_figures_are_not_written_as_a_gpus(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["", "--toy"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--toy needs --result" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="it is refused where there is no GPU")
def test_without_a_gpu_nothing_is_written(monkeypatch, tmp_path):
    file = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["", "--result", str(file)])
    with pytest.raises(SystemExit, match="there is no GPU here; --toy"):
        main()
    assert not file.exists()


def fails(_scale, report):
    report(first=1)
    raise ValueError("of this kind\nand more")


def crashes(_scale, report):
    report(first=1)
    os._exit(3)


def hangs(_scale, report):
    report(first=1)
    time.sleep(60)


def lacks(_scale, report):
    report(first=1)
    raise NotHere("nothing to measure with")


@pytest.mark.parametrize(
    ("measure", "key", "said"),
    [
        (fails, "error", "ValueError: of this kind and more (test_gpu_benchmark.py:"),
        (crashes, "error", "the process ended with 3"),
        (hangs, "error", "stopped after its 1 seconds"),
        (lacks, "skipped", "nothing to measure with"),
    ],
)
def test_what_was_reported_outlives_how_a_part_ends(measure, key, said):
    found = run_part(measure, TOY, 1)
    assert found["first"] == 1
    assert found[key].startswith(said)
    assert found["seconds"] < 10


def test_a_target_that_was_not_measured_is_neither_met_nor_missed():
    rows = check_targets({"ceilings": {"product_tflops": 800.0}, "forwards": {"error": "full"}})
    assert [row["met"] for row in rows] == [None] * len(TARGETS)


@pytest.mark.parametrize(("tflops", "met"), [(519.0, False), (520.0, True)])
def test_a_bound_belongs_to_the_target(tflops, met):
    parts = {"ceilings": {"product_tflops": 800.0}, "forwards": {"tflops": tflops}}
    (row,) = (row for row in check_targets(parts) if row["value"] is not None)
    assert row["met"] is met


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("nvjet_tst_128x256_64x4_2x1_v_bz_coopA_TNT", "products"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "products"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>", "attention"),
        (
            "void at::native::unrolled_elementwise_kernel<direct_copy_kernel_cuda>",
            "casts and copies",
        ),
        ("multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>", "optimizer"),
        ("void at::native::vectorized_elementwise_kernel<4, MulFunctor>", "elementwise"),
        ("triton_poi_fused_mul_silu_0", "elementwise"),
        ("Memcpy HtoD (Pinned -> Device)", "transfers"),
        ("some_other_kernel", "other"),
    ],
)
def test_kernels_are_told_apart_by_name(kernel, kind):
    assert kind_of(kernel) == kind


def test_overlapping_kernels_count_once():
    assert covered([(5.0, 8.0), (0.0, 2.0), (1.0, 3.0), (6.0, 7.0)]) == 6.0
