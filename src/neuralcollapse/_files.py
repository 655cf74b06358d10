"""How files are written, whole or not at all, and what JSON means here.

JSON has no infinity and no not-a-number: the texts "inf", "-inf" and "nan" stand for them, and are read as numbers.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from neuralcollapse._checks import InputError

try:
    import fcntl
except ImportError:  # not a Unix: what a killed writer left is then not removed
    fcntl = None  # type: ignore[assignment]

NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


class WriteError(InputError, OSError):
    """A file that cannot be written, such as for a full disk; ``filename`` is its path."""

    def __str__(self) -> str:
        return str(self.args[0])  # the sentence, instead of what an OSError makes of its number and file


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file to write in place of ``path``, which it becomes at the end of the block, or not at all.

    It lies in the same folder, is hidden, ends as ``path`` does, and has a name of its own, so that two processes that
    write one file do not meet: the last one wins, whole. What killed writers of the same file left is removed.

    Raises:
        InputError: the file cannot be written: no such folder, no permission, a full disk, or ``path`` is no file.
    """
    before = sys.exception()
    target = Path(os.path.realpath(path))  # of a link, the file it leads to is replaced
    if os.path.exists(target) and not target.is_file():
        raise InputError(f"cannot write {path}: it is {'a folder' if target.is_dir() else 'no regular file'}")
    try:
        temporary, lock = _reserve(target)
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        yield temporary
        written = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(written)
        finally:
            os.close(written)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        # PyTorch's and Matplotlib's writers answer a full disk, or an interrupt, by an error of their own
        cause = _cause(error, before)
        if cause is None or isinstance(error, InputError | KeyboardInterrupt):
            raise
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise _unwritten(path, cause) from error
    finally:
        if lock is not None:
            os.close(lock)


def replace_file(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file by what ``write`` puts into the binary file that it is called with; see :func:`replacing`."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        write(file)


def append_line(path: str | Path, record: dict[str, Any]) -> None:
    """Add a JSON object as a line and force it to disk; after an error the file is as it was.

    A last line without its end, which a killed process left, is cut off first; where it is a whole object, it is ended.

    Raises:
        InputError: the line cannot be written.
    """
    line = (json.dumps(finite(record), allow_nan=False) + "\n").encode()
    try:
        with Path(path).open("ab+", buffering=0) as file:
            if fcntl is not None:
                with contextlib.suppress(OSError):  # a file system without locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            whole, ended = _end_of_lines(file)
            try:
                if whole < file.seek(0, os.SEEK_END):
                    os.truncate(file.fileno(), whole)
                line = line if ended else b"\n" + line
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except BaseException:
                os.truncate(file.fileno(), whole)
                raise
    except OSError as error:
        raise _unwritten(path, error) from error


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Replace a file by a JSON object."""
    text = json.dumps(finite(content), indent=2, allow_nan=False) + "\n"
    replace_file(path, lambda file: file.write(text.encode()))


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file holds anything else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON file: {shortened(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line; the texts "inf", "-inf" and "nan" become numbers again.

    A last line without its end is one a process is still writing, or was killed in: it is left out.

    Raises:
        InputError: a finished line is no JSON object.
    """
    records = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n")[:-1], start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object, got {line[:60]!r}")
        records.append({key: numbers(value) for key, value in record.items()})
    return records


def finite(value: Any) -> Any:
    """Non-finite floats as the texts that stand for them, in nested dictionaries and lists too."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def numbers(value: Any) -> Any:
    """The other way: the texts that stand for non-finite numbers as those, in lists too."""
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def shortened(value: object, length: int = 80) -> str:
    """A value, or the first line of an error, for a message; the middle of a long one is left out."""
    try:
        text = str(value) if isinstance(value, str | BaseException) else repr(value)
    except ValueError:  # Python does not write integers of more than 4,300 digits
        return "a number of thousands of digits"
    text = text.partition("\n")[0]
    return text if len(text) <= length else f"{text[: length - 20]} … {text[-17:]}"


def _reserve(target: Path) -> tuple[Path, int | None]:
    """Make the temporary file. It is locked while its writer lives: of one that is not, the writer is gone."""
    start, end = f".{target.name}.", f".tmp{target.suffix}"
    for name in os.listdir(target.parent) if fcntl is not None else ():
        if name.startswith(start) and name.endswith(end) and (lock := _locked(target.parent / name)) is not None:
            with contextlib.suppress(OSError):
                os.unlink(target.parent / name)
            os.close(lock)
    while True:
        temporary = target.with_name(f"{start}{secrets.token_hex(6)}{end}")
        lock = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if fcntl is None:
            os.close(lock)  # an open file is not renamed there
            return temporary, None
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:
            return temporary, lock
        os.close(lock)  # before it was locked another writer took it for one that was left, and removed it


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock of a file; None where another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _end_of_lines(file: Any) -> tuple[int, bool]:
    """How many bytes of a file to keep: all whole lines, and a last one without its end if it is a whole object.

    Returns:
        The number of bytes, and whether the last of them ends a line.
    """
    size = file.seek(0, os.SEEK_END)
    start, tail = size, b""
    while start and b"\n" not in tail:
        end, start = start, max(0, start - 65536)
        file.seek(start)
        tail = file.read(end - start) + tail
    last = tail.rpartition(b"\n")[2]
    if not last:
        return size, True
    try:
        if isinstance(json.loads(last), dict):
            return size, False
    except (ValueError, RecursionError):
        pass
    return size - len(last), True


def _cause(error: BaseException, before: BaseException | None) -> OSError | KeyboardInterrupt | None:
    """The interrupt or the system's error that an error came from; none that had been there ``before``."""
    found: BaseException | None = error
    while found is not None and found is not before:
        if isinstance(found, OSError | KeyboardInterrupt):
            return found
        found = found.__cause__ or found.__context__
    return None


def _unwritten(path: str | Path, error: BaseException) -> WriteError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else shortened(error)
    made = WriteError(f"cannot write {path}: {reason}")
    made.errno, made.filename = getattr(error, "errno", None), str(path)
    return made
