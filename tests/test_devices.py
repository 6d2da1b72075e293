"""What a device is said to be good at, and which errors are its own."""

import pytest
import torch

from t2ipal.devices import (
    Halving,
    bf16_autocast,
    computes_bf16,
    device_name,
    is_device_fault,
    is_out_of_memory,
)


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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you"),
            True,
        ),
        (RuntimeError("expected scalar type Half but found Float"), False),
        (ValueError("out of memory, says a caption"), False),
    ],
)
def test_what_is_too_little_memory(error, expected):
    assert is_out_of_memory(error) is expected
    assert not (expected and is_device_fault(error))


class Memory:
    """Has room for so many rows."""

    def __init__(self, most):
        self.most, self.tried = most, []

    def work(self, rows):
        self.tried.append(rows.stop - rows.start)
        if self.tried[-1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return list(range(100))[rows]


@pytest.mark.parametrize("most", [1, 2, 3, 5, 9])
def test_short_memory_halves_what_is_done_at_once(most):
    halving, memory = Halving(), Memory(most)
    for count in (9, 9, 4, 0):
        parts = halving(memory.work, count, "rows")
        assert [row for part in parts for row in part] == list(range(count))
        assert max(map(len, parts)) <= most
    failed = [tried for tried in memory.tried if tried > most]
    assert failed == sorted(set(failed), reverse=True)  # nothing is tried again that failed


def test_no_room_for_one_is_an_error():
    message = "The device has no memory for images, not even one at once. Take a device with more"
    with pytest.raises(torch.OutOfMemoryError, match=message):
        Halving()(Memory(0).work, 5, "images")


def test_other_errors_are_not_hidden():
    def work(rows):
        raise RuntimeError("expected scalar type Half but found Float")

    with pytest.raises(RuntimeError, match="expected scalar type"):
        Halving()(work, 5, "images")
