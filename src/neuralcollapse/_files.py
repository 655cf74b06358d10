"""The one way in which this package writes files, locks them, and reads and writes JSON.

A file is replaced whole or not at all. JSON has no infinity and no not-a-number: they are written as the texts "inf",
"-inf" and "nan". Lines of numbers (`read_lines`) turn these texts back into numbers; what a type describes
(`validated`) does so where the type says number, so that a class called "nan" stays a text.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from neuralcollapse._errors import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

_LONGEST_TEXT = 256 << 20
"""Bytes of the longest file of settings or measurements that is read."""
NON_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}

Kind = TypeVar("Kind")


class WriteError(InputError, OSError):
    """A file that cannot be written, such as on a full disk; `filename` is its path."""

    def __str__(self) -> str:
        return str(self.args[0])  # the sentence, not the number and file name that an OSError prints


def lock(file: IO[Any] | int, *, wait: bool = True, shared: bool = False) -> bool:
    """Lock an open file or folder until it is closed or the process ends; other processes can still read and write it.

    Args:
        file: an open file, or a descriptor.
        wait: whether to wait for another process that holds the lock.
        shared: several processes may hold it at once, but none of them beside one that is not shared.

    Returns:
        Whether it is locked: False where the system or the file system has no locks.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


@contextlib.contextmanager
def locked(path: str | Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of an existing file or folder during a block; see `lock`."""
    if fcntl is None:  # where there are no locks, a folder cannot be opened either
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        lock(descriptor, wait=wait)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary file to write, which replaces `path` at the end of the block, or is removed after an error.

    It is a hidden file in the same folder with the same ending and a name of its own: of two processes that write one
    file, the last one's is kept, whole. Temporary files that killed writers of the same file left are removed.

    Raises:
        InputError: the file cannot be written: no such folder, no permission, a full disk, or `path` is a folder or
            a device.
    """
    before = sys.exception()
    target = Path(os.path.realpath(path))  # a link stays a link; the file that it points to is replaced
    if os.path.exists(target) and not target.is_file():
        raise InputError(f"cannot write {path}: it is {'a folder' if target.is_dir() else 'not a regular file'}")
    try:
        temporary, held = _create_temporary(target)
    except OSError as error:
        raise _write_error(path, error) from error
    try:
        yield temporary
        with temporary.open("rb+", buffering=0) as written:
            os.fsync(written)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        # PyTorch and Matplotlib replace the error of a full disk, or an interrupt, by one of their own
        cause = _system_cause(error, before)
        if cause is None or isinstance(error, InputError | KeyboardInterrupt):
            raise
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise _write_error(path, cause) from error
    finally:
        if held is not None:
            os.close(held)


def append_line(path: str | Path, record: dict[str, Any]) -> None:
    """Append a JSON object as a line and force it to disk; after an error the file is as it was before.

    A last line without a line end, which a killed process left, is removed first, or ended if it is a whole object.

    Raises:
        InputError: the line cannot be written.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):  # it has no last line to look for
        raise InputError(f"cannot write {path}: it is not a regular file")
    line = (to_json(record) + "\n").encode()
    try:
        with Path(path).open("ab+", buffering=0) as file:
            lock(file)
            kept, ended = _end_of_lines(file)
            try:
                if kept < file.seek(0, os.SEEK_END):
                    os.truncate(file.fileno(), kept)
                line = line if ended else b"\n" + line
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except BaseException:
                os.truncate(file.fileno(), kept)
                raise
    except OSError as error:
        raise _write_error(path, error) from error


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Replace a file by a JSON object."""
    with replacing(path) as temporary:
        temporary.write_bytes((to_json(content, indent=2) + "\n").encode())


def to_json(content: Any, *, indent: int | None = None) -> str:
    """JSON text, with non-finite numbers as "inf", "-inf" and "nan"."""
    return json.dumps(finite(content), indent=indent, allow_nan=False)


def read_text(path: str | Path) -> str:
    """The text of a file, or of a pipe.

    Raises:
        InputError: more than any file of settings or measurements has, as of a device that never ends.
        UnicodeDecodeError: it is not UTF-8.
    """
    with Path(path).open("rb") as file:
        content = file.read(_LONGEST_TEXT + 1)
    if len(content) > _LONGEST_TEXT:
        raise InputError(
            f"expected a file of at most {_LONGEST_TEXT >> 20} MiB, got more from {path}: give another file"
        )
    return content.decode("utf-8")


def read_any_json(path: str | Path) -> Any:
    """Read a JSON file; the texts "inf", "-inf" and "nan" stay texts, see `validated`.

    Raises:
        InputError: the file is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file: {shortened(error)}") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object, as `read_any_json` does.

    Raises:
        InputError: the file holds anything else.
    """
    content = read_any_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object per line; the texts "inf", "-inf" and "nan" become numbers again.

    A last line without a line end is left out: a process is still writing it, or was killed while it did.

    Raises:
        InputError: a finished line is not a JSON object.
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


def validated(kind: type[Kind], content: Any, where: str | Path) -> Kind:
    """Content of a file as an instance of a type, such as a dataclass, checked by pydantic.

    Args:
        kind: what is expected; any type that pydantic knows.
        content: what the file holds, as `json` reads it, or JSON text as bytes.
        where: the file, for the message; "" where a field is an option of the command line.

    Raises:
        InputError: a sentence that names the file, the field, what was expected and what was found.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(kind)
        return adapter.validate_json(content) if isinstance(content, bytes) else adapter.validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        raise InputError(f"{where} has no {field!r}")
    subject = f"{where}: {field}" if where and field else str(where) or f"--{first['loc'][0]}".replace("_", "-")
    head, should, wanted = first["msg"].removeprefix("Value error, ").partition(" should ")
    wanted = wanted.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    expected = f" must {wanted}" if should else f": {head}"
    raise InputError(f"{subject}{expected}, got {shortened(repr(first['input']))}")


@contextlib.contextmanager
def readable(path: str | Path, kind: str, advice: str = "") -> Iterator[None]:
    """Turn any error of a library that reads a damaged file into one sentence.

    Raises:
        InputError: "PATH is not a readable KIND: what the library says", and the advice; or that it may not be read.
    """
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except Exception as error:  # for damaged bytes, libraries raise errors of any type
        reason = shortened(error, 160) or type(error).__name__
        raise InputError(f"{path} is not a readable {kind}: {reason}{advice}") from error


def finite(value: Any) -> Any:
    """The value with non-finite floats as "inf", "-inf" or "nan", in nested dictionaries and lists too."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def numbers(value: Any) -> Any:
    """The value with the texts "inf", "-inf" and "nan" as numbers, in lists too; the inverse of `finite`."""
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return NON_FINITE.get(value, value) if isinstance(value, str) else value


def shortened(value: object, length: int = 80) -> str:
    """A value or the first line of an error, for a message, without the middle if it is long."""
    try:
        text = str(value) if isinstance(value, str | BaseException) else repr(value)
    except ValueError:  # Python does not write integers of more than 4,300 digits
        return "a number of thousands of digits"
    text = text.partition("\n")[0]
    return text if len(text) <= length else f"{text[: length - 20]} … {text[-17:]}"


def _create_temporary(target: Path) -> tuple[Path, int | None]:
    """Make a temporary file and lock it while its writer lives; remove those whose writer is gone."""
    start, end = f".{target.name}.", f".tmp{target.suffix}"
    for name in os.listdir(target.parent) if fcntl is not None else ():
        if name.startswith(start) and name.endswith(end):
            left = target.parent / name
            with contextlib.suppress(OSError), left.open("rb+", buffering=0) as file:  # gone, or locked by its writer
                if lock(file, wait=False):
                    left.unlink()
    while True:
        temporary = target.with_name(f"{start}{secrets.token_hex(6)}{end}")
        held = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if fcntl is None:
            os.close(held)  # Windows does not rename an open file
            return temporary, None
        lock(held)
        if os.fstat(held).st_nlink:
            return temporary, held
        os.close(held)  # before it was locked, another writer took it for one that was left, and removed it


def _end_of_lines(file: Any) -> tuple[int, bool]:
    """The number of bytes to keep, and whether they end with a line end.

    A last line without a line end is kept if it is a whole JSON object.
    """
    file.seek(0)
    content = file.read()
    last = content[content.rfind(b"\n") + 1 :]
    with contextlib.suppress(ValueError, RecursionError):
        if last and isinstance(json.loads(last), dict):
            return len(content), False
    return len(content) - len(last), True


def _system_cause(error: BaseException, before: BaseException | None) -> OSError | KeyboardInterrupt | None:
    """The interrupt or system error that led to an error; not one that was being handled `before`."""
    found: BaseException | None = error
    while found is not None and found is not before:
        if isinstance(found, OSError | KeyboardInterrupt):
            return found
        found = found.__cause__ or found.__context__
    return None


def _write_error(path: str | Path, error: BaseException) -> WriteError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else shortened(error)
    raised = WriteError(f"cannot write {path}: {reason}")
    raised.errno, raised.filename = getattr(error, "errno", None), str(path)
    return raised
