"""A network made ready to be observed: one measurement at a time, layers that run as they are, weights in one piece."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from neuralcollapse._checks import InputError
from neuralcollapse.measuring.batches import random_states_kept

# A measurement switches a network to eval mode and back, and so with random states, which belong to the whole process:
# of several threads each waits for its turn.
_turn = threading.RLock()


@contextmanager
def observed(model: nn.Module, *loaders: Any) -> Iterator[nn.Module]:
    """Within the block, the network itself, whose layers run one by one in Python, so that hooks see what enters them.

    - Wrappers are taken off, anywhere in the network, and put back: ``torch.compile``, ``DataParallel``,
      ``DistributedDataParallel`` (whose forward pass would wait for the other processes' passes), FSDP 1.
    - What is compiled runs eagerly, in the whole process while the block lasts.
    - Weights that FSDP 1 or 2 spread over processes are gathered, which needs memory for all of them; every process
      must enter. Passes then need no other process, however many batches each has.
    - Generators of the loaders are put back.

    One thread at a time is let in.

    Raises:
        InputError: no module.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a network, a torch.nn.Module, got {type(model).__name__}")
    with ExitStack() as stack:
        stack.enter_context(_turn)
        stack.enter_context(random_states_kept(*loaders))
        if "torch._dynamo" in sys.modules:  # else nothing has been compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        fsdp = sys.modules.get("torch.distributed.fsdp")
        if fsdp is not None:
            if any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()):
                stack.enter_context(fsdp.FullyShardedDataParallel.summon_full_params(model, writeback=False))
            sharded = [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]
            stack.enter_context(_gathered(sharded))
        inner = stack.enter_context(_unwrapped(model))
        yield inner


@contextmanager
def _unwrapped(model: nn.Module) -> Iterator[nn.Module]:
    """The network without its wrappers, which its parts are without too while the block lasts."""
    places = [
        (parent._modules, name, child)
        for parent in model.modules()
        if _inside(parent) is None
        for name, child in parent._modules.items()
        if child is not None and _inside(child) is not None
    ]
    for children, name, child in places:
        children[name] = innermost(child)
    try:
        yield innermost(model)
    finally:
        for children, name, child in places:
            children[name] = child


def innermost(module: Any) -> Any:
    """A module without its wrappers; anything else, such as the name of one, as it is."""
    if isinstance(module, tuple):
        return tuple(innermost(part) for part in module)
    while isinstance(module, nn.Module) and (inside := _inside(module)) is not None:
        module = inside
    return module


def _inside(module: nn.Module) -> nn.Module | None:
    """What a wrapper wraps; None for any other module."""
    if isinstance(module, (nn.DataParallel, DistributedDataParallel)):
        inside: nn.Module = module.module
        return inside
    for name, where, kind in (
        ("_orig_mod", "torch._dynamo.eval_frame", "OptimizedModule"),
        ("_fsdp_wrapped_module", "torch.distributed.fsdp", "FullyShardedDataParallel"),
    ):
        # who has such a module has imported what made it
        if name in module._modules and isinstance(module, getattr(sys.modules.get(where), kind, ())):
            return module._modules[name]
    return None


@contextmanager
def _gathered(modules: list[Any]) -> Iterator[None]:
    """Modules that ``fully_shard`` spread over processes, in one piece, also after their forward passes."""
    groups = []
    for module in modules:
        state = module._get_fsdp_state()
        # As the first forward pass does, which a process without data has yet to make: all are to go on alike.
        state._lazy_init()
        # PyTorch sets how a module is sharded again, and tells nobody how it is set
        single = getattr(state, "_fsdp_param_group", None)
        for group in getattr(state, "_fsdp_param_groups", None) or ([] if single is None else [single]):
            groups.append((state, state._auto_reshard_after_forward, group, group.post_forward_mesh_info))
    try:
        for module in modules:
            module.unshard()
            module.set_reshard_after_forward(False, recurse=False)
        yield
    finally:
        for state, automatic, group, mesh in groups:
            state._auto_reshard_after_forward, group.post_forward_mesh_info = automatic, mesh
        for module in modules:
            module.reshard()
