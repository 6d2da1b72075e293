"""What a device is good at, how much it takes at once, and whether it has failed."""

from collections.abc import Callable
from math import inf
from typing import TypeVar

import torch

Result = TypeVar("Result")
OUT_OF_MEMORY = "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator"
"""Words by which torch and its libraries say so: of GPUs, of cuBLAS, and of CPUs."""
BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Names in `torch.cpu.get_capabilities()`, of x86 and of ARM."""


def computes_bf16(device: str) -> bool:
    """Whether a torch device multiplies bfloat16 in hardware.

    A CPU that does not imitates it, ten to seventy times slower than float32. Old versions of torch
    cannot tell; the answer is then no.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name, False) for name in BF16_CAPABILITIES)
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "mps"


def device_name(device: str) -> str:
    """What a torch device is: a GPU's model, or which instructions a CPU offers to torch."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu {torch.backends.cpu.get_cpu_capability()}" if kind == "cpu" else kind


def bf16_autocast(device: str) -> torch.autocast:
    """Autocast to bfloat16 where that is fast; elsewhere a context that changes nothing."""
    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=computes_bf16(device))


class Halving:
    """Does the rows of a batch together, in halves where the device's memory is short.

    Remembers what was too many. Sizes below are still tried, so that the parts are those of a
    worker that forgets.
    """

    def __init__(self) -> None:
        self.most_at_once = inf

    def __call__(self, work: Callable[[slice], Result], count: int, what: str) -> list[Result]:
        """Results of consecutive parts of the rows.

        Args:
            work: does the rows of a slice.
            count: of all rows.
            what: a row is, for the error.

        Raises:
            torch.OutOfMemoryError: there is no room for a single row.
        """
        return self._parts(work, 0, count, what)

    def _parts(
        self, work: Callable[[slice], Result], start: int, stop: int, what: str
    ) -> list[Result]:
        count = stop - start
        if count <= self.most_at_once:
            try:
                return [work(slice(start, stop))]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if count <= 1:
                    raise torch.OutOfMemoryError(
                        f"The device has no memory for {what}, not even one at once. Take a device "
                        f"with more memory, or a smaller model. {error}"
                    ) from error
                self.most_at_once = count - 1
            # Only here, outside of the except, are the tensors free that the error's frames held.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        middle = start + count // 2
        return [
            *self._parts(work, start, middle, what),
            *self._parts(work, middle, stop, what),
        ]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device had too little memory; less work at once may fit."""
    # Libraries of kernels, CPUs and old versions of torch raise a plain RuntimeError.
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)
    )


def is_device_fault(error: BaseException) -> bool:
    """Whether an error is one of the device, after which the process can compute nothing on it."""
    if is_out_of_memory(error):
        return False
    # Old versions of torch raise a plain RuntimeError, as its libraries of kernels still do.
    kinds = getattr(torch, "AcceleratorError", ())
    named = isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "HIP error"))
    return named or isinstance(error, kinds)
