"""What a device is good at, and whether it has failed, asked in one place."""

import torch

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


def is_device_fault(error: BaseException) -> bool:
    """Whether an error is one of the device, after which the process can compute nothing on it.

    Running out of memory is none: less work at once may fit.
    """
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text:
        return False
    # Old versions of torch raise a plain RuntimeError, as its libraries of kernels still do.
    kinds = getattr(torch, "AcceleratorError", ())
    named = isinstance(error, RuntimeError) and text.startswith(("CUDA error", "HIP error"))
    return named or isinstance(error, kinds)
