"""What a device is said to be good at, and which errors are its own."""

import pytest
import torch

from t2ipal.devices import bf16_autocast, computes_bf16, device_name, is_device_fault


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True}, False),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_a_cpu_without_bfloat16_computes_in_float32(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert computes_bf16("cpu") is expected
    with bf16_autocast("cpu"):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if expected else torch.float32)


def test_a_device_is_named_by_what_its_last_bits_depend_on(monkeypatch):
    assert device_name("cpu") == f"cpu {torch.backends.cpu.get_cpu_capability()}"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU of {device}")
    assert device_name("cuda:1") == "GPU of cuda:1"
    assert device_name("mps") == "mps"


def test_without_knowledge_the_answer_is_no(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not computes_bf16("cpu")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("HIP error: unspecified launch failure"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."), False),
        (RuntimeError("expected scalar type Half but found Float"), False),
        (ValueError("CUDA error: so says a caption"), False),
    ],
)
def test_faults_of_a_device(error, expected):
    assert is_device_fault(error) is expected


@pytest.mark.skipif(not hasattr(torch, "AcceleratorError"), reason="an old version of torch")
def test_what_torch_calls_an_error_of_the_accelerator_is_a_fault_of_the_device():
    assert is_device_fault(torch.AcceleratorError("device-side assert triggered"))
