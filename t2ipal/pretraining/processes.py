"""Several processes that train one model together, under torchrun."""

from collections.abc import Sequence

import torch
from torch import Tensor


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many train together; 0 of 1 where it is alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def sum_over_processes(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its sum over the processes, in one message."""
    if rank_and_world()[1] == 1:
        return
    joined = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(joined)
    for tensor, part in zip(tensors, joined.split([tensor.numel() for tensor in tensors])):
        tensor.copy_(part.view_as(tensor))
