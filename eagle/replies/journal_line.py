"""A line of the journal of replies: the beginning of its content's SHA-256, and the content."""

import hashlib


def journal_line(content: bytes) -> bytes:
    """The line of a content, which ends with a line break."""
    return _checksum(content) + b" " + content


def content_of(line: bytes) -> bytes | None:
    """What `journal_line` made a line of; None if the line is cut off or damaged."""
    checksum, _, content = line.partition(b" ")
    return content if checksum == _checksum(content) and line.endswith(b"\n") else None


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:16].encode()
