"""Rows of files of conversations, streamed: a JSON list, JSON lines or Parquet, plain or packed.

What a file is, its first bytes say, not its name. JSON is decoded by the standard library's
decoder, which keeps lone surrogates to be judged (yajl writes a question mark for them) and names
line and column of what is wrong.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from eagle.errors import InputError
from eagle.files import check_file, not_json
from eagle.tracking import Progress

CHUNK = 2**22  # bytes read at a time
LONGEST_ROW = 2**26  # characters
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
PARQUET = b"PAR1"
PARQUET_ROWS = 256  # rows in memory at a time
PARQUET_COLUMNS = {"id", "conversations", "messages"}  # others need not be read
WHITE_SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()


def batches_of_rows(file: Path, progress: Progress) -> Iterator[list[Any]]:
    """All rows of a file, as many at a time as one read gave.

    Args:
        progress: advanced by the megabytes read.

    Raises:
        InputError: absent, empty, cut off, or not what its first bytes say it is.
    """
    check_file(file)
    with file.open("rb") as raw:
        first = raw.read(4)
        raw.seek(0)
        if first == PARQUET:
            yield from _parquet_rows(raw, file, progress)
        else:
            packed = next((name for magic, name in PACKED.items() if first.startswith(magic)), None)
            yield from _json_rows(_text(_chunks(raw, packed, file, progress), file), file)


def _chunks(raw: BinaryIO, packed: str | None, file: Path, progress: Progress) -> Iterator[bytes]:
    stream = raw
    if packed is not None:
        import pyarrow  # half a second that plain JSON need not wait

        stream = pyarrow.CompressedInputStream(raw, packed)
    read = 0
    while True:
        try:
            chunk = stream.read(CHUNK)
        except OSError as error:
            raise InputError(
                f"{file}: the {packed} data is damaged or cut off ({error}): get it again"
            ) from None
        if not chunk:
            return
        progress.advance((raw.tell() - read) / 1e6)
        read = raw.tell()
        yield chunk


def _text(chunks: Iterator[bytes], file: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()  # Windows editors leave a mark in front
    decoded = 0
    while True:
        chunk = next(chunks, b"")
        kept = len(decoder.getstate()[0])  # the chunk before ended within a character
        try:
            if text := decoder.decode(chunk, final=not chunk):
                yield text
        except UnicodeDecodeError as error:
            raise InputError(
                f"{file}: not UTF-8 text ({error.reason} at byte {decoded - kept + error.start}); "
                "expected a JSON text file"
            ) from None
        if not chunk:
            return
        decoded += len(chunk)


class _Source:
    """The text not yet decoded, and where in the file it begins."""

    def __init__(self, pieces: Iterator[str], file: Path):
        self.pieces, self.file = pieces, file
        self.text, self.at, self.ended = "", 0, False
        self.line, self.column = 1, 1  # of self.text[0]

    def more(self) -> bool:
        """Read on, dropping what is done with; whether there was anything to read."""
        done = self.text[: self.at]
        breaks = done.count("\n")
        self.column = len(done) - done.rfind("\n") if breaks else self.column + len(done)
        self.line += breaks
        piece = next(self.pieces, "")
        # at least as much again as there is, so that a long row is not decoded over and over
        while piece and len(piece) < len(self.text) - self.at:
            following = next(self.pieces, "")
            piece += following
            if not following:
                break
        self.ended = not piece
        self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def next_character(self) -> str:
        """The next one that is not white space, still to be read; empty at the end."""
        while True:
            self.at = WHITE_SPACE.match(self.text, self.at).end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def error(self, message: str, at: int, cut_off: bool = False) -> InputError:
        before = self.text[:at]
        breaks = before.count("\n")
        column = at - before.rfind("\n") if breaks else self.column + at
        return not_json(str(self.file), self.line + breaks, column, message, cut_off)


def _json_rows(pieces: Iterator[str], file: Path) -> Iterator[list[Any]]:
    """Values of one list, or values that white space divides (JSON lines)."""
    source = _Source(pieces, file)
    opening = source.next_character()
    if not opening:
        raise InputError(f"{file}: the file is empty; expected JSON")
    in_list = opening == "["
    if in_list:
        source.at += 1
    batch: list[Any] = []
    text = source.text
    first = True
    while True:
        if source.text is not text and batch:  # a row may have needed more text; hand on the others
            yield batch
            batch = []
        text = source.text
        following = source.next_character()
        if in_list:
            if following == "]":
                source.at += 1
                if source.next_character():
                    raise source.error("Extra data", source.at)
                break
            if not first:
                if following != ",":
                    raise source.error("Expecting ',' delimiter", source.at, not following)
                source.at += 1
                following = source.next_character()
            if not following:
                raise source.error("Expecting value", source.at, cut_off=True)
        elif not following:
            break
        batch.append(_value(source))
        first = False
    yield batch


def _value(source: _Source) -> Any:
    """Decode one value, reading on for as long as it is not whole."""
    while True:
        try:
            value, end = DECODER.raw_decode(source.text, source.at)
            if end < len(source.text) or source.ended:  # else a number may go on
                source.at = end
                return value
        except json.JSONDecodeError as error:
            # the longest thing of which a part alone is wrong is \ud83d\ude42, 12 characters
            unfinished = error.msg.startswith("Unterminated")
            if source.ended or not (unfinished or error.pos > len(source.text) - 12):
                unfinished |= error.pos >= len(source.text.rstrip())
                raise source.error(error.msg, error.pos, cut_off=unfinished) from None
        except RecursionError:
            raise source.error("nested too deeply to be read", source.at) from None
        except ValueError:  # Python's own limit on the digits of an integer
            raise source.error("a number of thousands of digits", source.at) from None
        if len(source.text) - source.at > LONGEST_ROW:
            raise source.error(f"a row of more than {LONGEST_ROW:,} characters", source.at)
        source.more()


def _parquet_rows(raw: BinaryIO, file: Path, progress: Progress) -> Iterator[list[Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(raw)
        size = check_file(file) / 1e6 / max(1, table.metadata.num_rows)
        columns = [name for name in table.schema_arrow.names if name in PARQUET_COLUMNS]
        for batch in table.iter_batches(PARQUET_ROWS, columns=columns or None):
            progress.advance(size * batch.num_rows)
            yield batch.to_pylist()
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{file}: not readable as Parquet: {reason}; get it again") from None
