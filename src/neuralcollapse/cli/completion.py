"""`neuralcollapse --install-completion`: the shell completes commands, options and their words."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from neuralcollapse._errors import InputError, suggest
from neuralcollapse._files import replacing
from neuralcollapse.cli.option_types import MARKERS, RULES, one_of

FILES = {
    "bash": ".local/share/bash-completion/completions/neuralcollapse",
    "zsh": ".zfunc/_neuralcollapse",
    "fish": ".config/fish/completions/neuralcollapse.fish",
}
"""Where each shell looks for the script, below the home folder."""
_NEXT = {
    "bash": "open a new shell; without the package bash-completion, add to ~/.bashrc: source {path}",
    "zsh": "add to ~/.zshrc, before compinit: fpath+=~/.zfunc; then open a new shell",
    "fish": "open a new shell",
}
_WORDS = ConstructorRegistry()


@_WORDS.primitive_rule
def _complete_words(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """As `one_of`, with the words as choices, which the shell then offers."""
    found = one_of(info)
    if not isinstance(found, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(found, choices=get_args(info.type))


def install_completion(commands: Mapping[str, type], shell: str | None = None) -> str:
    """Write the script of a shell where it looks for it; returns what was done and what to do next.

    Args:
        commands: the dataclass of each, by name.
        shell: bash, zsh or fish; by default that of the environment variable SHELL.

    Raises:
        InputError: another shell.
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in FILES:
        got = repr(name) if name else "an empty SHELL"
        raise InputError(
            f"no completion for {got}{suggest(name, FILES)}; "
            f"expected `neuralcollapse --install-completion` with one of {', '.join(FILES)}"
        )
    path = Path.home() / FILES[name]
    path.parent.mkdir(parents=True, exist_ok=True)
    script = completion_script(commands, name).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(script)
    return f"{path}\n{_NEXT[name].format(path=path)}"


def completion_script(commands: Mapping[str, type], shell: str) -> str:
    """The script that completes `neuralcollapse`, all commands and options in it."""
    kinds = tuple(Annotated[cls, tyro.conf.subcommand(name, prefix_name=False)] for name, cls in commands.items())
    any_command: Any = Union[kinds]  # noqa: UP007
    printed = io.StringIO()
    arguments = ["--tyro-print-completion", shell]
    with RULES, contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        tyro.cli(any_command, prog="neuralcollapse", args=arguments, registry=_WORDS, config=MARKERS)
    return printed.getvalue()
