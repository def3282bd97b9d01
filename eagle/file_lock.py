"""A lock between processes, which the system releases with the process that holds it."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(Exception):
    """Another process holds the lock; the message names that process."""


@contextmanager
def file_lock(path: Path, wait: bool) -> Iterator[None]:
    """Hold the lock of a file, which is created if need be and stays.

    Args:
        wait: until it is free.

    Raises:
        Held: it is not free, and `wait` is false.
        OSError: the file cannot be written.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            raise Held(file.read()) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
