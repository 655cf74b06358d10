"""Work that several processes do together: an error on one of them ends it on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist

from neuralcollapse._checks import InputError

Result = TypeVar("Result")


def on_all_processes(work: Callable[[], Result], distributed: bool) -> Result:
    """``work()``; when distributed, an error on one process is an error on all, so that none waits for another.

    Raises:
        InputError: there is no process group; or what a process refused, with its rank.
        RuntimeError: any other error of another process, with its rank and type; its own process raises it unchanged.
    """
    if not distributed:
        return work()
    if not dist.is_available() or not dist.is_initialized():
        raise InputError(
            "expected an initialised torch.distributed process group for distributed=True, got none: "
            "call torch.distributed.init_process_group() before, or leave distributed out"
        )
    result: Result | None = None
    mine: Exception | None = None
    told: tuple[bool, str] | None = None
    errors: list[tuple[bool, str] | None] = [None] * dist.get_world_size()
    try:
        try:
            result = work()
        except Exception as error:
            refused = isinstance(error, InputError)
            mine, told = error, (refused, str(error) if refused else f"{type(error).__name__}: {error}")
        try:
            dist.all_gather_object(errors, told)
        except RuntimeError as error:
            if mine is not None:
                raise mine from None
            raise RuntimeError(f"expected all processes to measure, one has ended: {error}") from error
        failed = next(((rank, each) for rank, each in enumerate(errors) if each is not None), None)
        if failed is None:
            return result  # type: ignore[return-value]
        if mine is not None and not isinstance(mine, InputError):
            raise mine
        rank, (refused, text) = failed
        raise (InputError if refused else RuntimeError)(f"process {rank}: {text}") from mine
    finally:
        mine = None  # an error that its own frame holds would keep the network until Python looks for cycles
