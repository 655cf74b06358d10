"""A network made ready for measuring, and put back as it was: eval mode, wrappers off, weights gathered, one at a time.

Random states, of PyTorch, NumPy and Python and of the loaders, are put back too.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from neuralcollapse._checks import InputError

# A measurement changes modes and random states, which belong to the whole process: one thread measures at a time.
_turn = threading.RLock()
# Where to stop looking for a loader's generators: so many objects, and lists of so many entries.
_MOST_OBJECTS, _LONGEST_LIST = 10_000, 64


@contextmanager
def prepared(model: nn.Module, *loaders: Any) -> Iterator[nn.Module]:
    """Within the block, the network in eval mode, without gradients, its layers run one by one in Python.

    - Wrappers are taken off, anywhere in the network, and put back: ``torch.compile``, ``DataParallel``,
      ``DistributedDataParallel`` (whose forward pass would wait for the other processes' passes), FSDP 1, activation
      checkpointing. What is compiled runs eagerly, in the whole process, while the block lasts.
    - Weights that FSDP 1 or 2 spread over processes are gathered, which needs memory for all of them; every process
      must enter the block. Forward passes then need no other process, whatever the number of batches of each.
    - Modes and random states are put back.

    Raises:
        InputError: ``model`` is no module.
    """
    require_network(model)
    with ExitStack() as stack:
        stack.enter_context(_turn)
        stack.enter_context(random_states_kept(*loaders))
        if "torch._dynamo" in sys.modules:  # otherwise nothing has been compiled, and importing it takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        fsdp = sys.modules.get("torch.distributed.fsdp")
        if fsdp is not None:
            if any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()):
                stack.enter_context(fsdp.FullyShardedDataParallel.summon_full_params(model, writeback=False))
            sharded = [module for module in model.modules() if isinstance(module, fsdp.FSDPModule)]
            stack.enter_context(_gathered(sharded))
        inner = stack.enter_context(_unwrapped(model))
        stack.enter_context(evaluation(inner))
        yield inner


def require_network(model: object) -> None:
    """Raise unless it is a module."""
    if not isinstance(model, nn.Module):
        hint = ": call it to make one" if isinstance(model, type | FunctionType) else ""
        raise InputError(f"expected a network, a torch.nn.Module, got {type(model).__name__}{hint}")


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; modes and the random states of Python, NumPy and PyTorch are put back."""
    modes = {module: module.training for module in model.modules()}
    own = _own_of_those_with_a_train_of_their_own(model)
    try:
        model.eval()
        with torch.no_grad(), global_random_states_kept():
            yield
    finally:
        for module, mode in modes.items():
            # a module may do more than set the flag, such as merge an adapter into its weight and take it out again
            if module.training != mode and type(module).train is not nn.Module.train:
                module.train(mode)
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for tensor, kept in own:  # taken out again, an adapter leaves the weight its rounding
                if not torch.equal(tensor, kept):
                    tensor.copy_(kept)


@contextmanager
def global_random_states_kept() -> Iterator[None]:
    """Put back the random states of Python, NumPy and PyTorch."""
    python_state, numpy_state, cpu_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(cpu_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)


def _own_of_those_with_a_train_of_their_own(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The weights and buffers that changing a mode may change, each with a copy."""
    modules = [module for module in model.modules() if type(module).train is not nn.Module.train]
    tensors = [tensor for module in modules for of in (module._parameters, module._buffers) for tensor in of.values()]
    return [(tensor, tensor.detach().clone()) for tensor in tensors if tensor is not None]


@contextmanager
def random_states_kept(*loaders: Any) -> Iterator[None]:
    """Put back the generators that loaders, samplers, data sets and transforms keep for themselves.

    They are looked for in attributes, and in short lists and dictionaries of them. State of another kind, such as a
    sampler's own counter, is not put back, nor what a worker process keeps.
    """
    restores: list[Callable[[], object]] = []
    seen: dict[int, object] = {}
    waiting = list(loaders)
    while waiting and len(seen) < _MOST_OBJECTS:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        if isinstance(value, torch.Generator):
            restores.append(partial(value.set_state, value.get_state()))
        elif isinstance(value, random.Random):
            restores.append(partial(value.setstate, value.getstate()))
        elif isinstance(value, np.random.RandomState):
            restores.append(partial(value.set_state, value.get_state()))
        elif isinstance(value, np.random.Generator):
            restores.append(partial(setattr, value.bit_generator, "state", value.bit_generator.state))
        elif isinstance(value, (list, tuple)):
            waiting += value if len(value) <= _LONGEST_LIST else ()
        elif isinstance(value, dict):
            waiting += value.values() if len(value) <= _LONGEST_LIST else ()
        elif not isinstance(value, (type, ModuleType, Tensor, np.ndarray)) and hasattr(value, "__dict__"):
            waiting += vars(value).values()
    try:
        yield
    finally:
        for restore in restores:
            restore()


def unwrapped(module: Any) -> Any:
    """A module without its wrappers; anything else, such as a module's name, as it is."""
    while isinstance(module, nn.Module) and (inside := _inside(module)) is not None:
        module = inside
    return module


@contextmanager
def _unwrapped(model: nn.Module) -> Iterator[nn.Module]:
    """The network without its wrappers, at every depth, while the block lasts."""
    wrapped_children = [
        (parent._modules, name, child)
        for parent in model.modules()
        if _inside(parent) is None
        for name, child in parent._modules.items()
        if child is not None and _inside(child) is not None
    ]
    for children, name, child in wrapped_children:
        children[name] = unwrapped(child)
    try:
        yield unwrapped(model)
    finally:
        for children, name, child in wrapped_children:
            children[name] = child


def _inside(module: nn.Module) -> nn.Module | None:
    """The module in a wrapper; None for a module that is no wrapper."""
    if isinstance(module, (nn.DataParallel, DistributedDataParallel)):
        inside: nn.Module = module.module
        return inside
    checkpoint = "torch.distributed.algorithms._checkpoint.checkpoint_wrapper"
    for name, home, kind in (
        ("_orig_mod", "torch._dynamo.eval_frame", "OptimizedModule"),
        ("_fsdp_wrapped_module", "torch.distributed.fsdp", "FullyShardedDataParallel"),
        ("_checkpoint_wrapped_module", checkpoint, "CheckpointWrapper"),
    ):
        # a module of that kind exists only after its home was imported
        if name in module._modules and isinstance(module, getattr(sys.modules.get(home), kind, ())):
            return module._modules[name]
    return None


@contextmanager
def _gathered(modules: list[Any]) -> Iterator[None]:
    """Modules that ``fully_shard`` spread over processes, in one piece, also after their forward passes."""
    settings = []
    for module in modules:
        state = module._get_fsdp_state()
        # As the first forward pass does; a process without data has made none, and all must be in the same state.
        state._lazy_init()
        # PyTorch can set whether a module is sharded again after its pass, but gives no way to ask for the setting.
        single = getattr(state, "_fsdp_param_group", None)
        for group in getattr(state, "_fsdp_param_groups", None) or ([] if single is None else [single]):
            settings.append((state, state._auto_reshard_after_forward, group, group.post_forward_mesh_info))
    try:
        for module in modules:
            module.unshard()
            module.set_reshard_after_forward(False, recurse=False)
        yield
    finally:
        for state, automatic, group, mesh in settings:
            state._auto_reshard_after_forward, group.post_forward_mesh_info = automatic, mesh
        for module in modules:
            module.reshard()
