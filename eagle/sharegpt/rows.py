"""Stream the rows of a file of conversations: a JSON list, JSON lines or Parquet.

JSON may be compressed with gzip or zstd. The first bytes of a file decide its format, not its name.
JSON is decoded by the standard library's decoder: it keeps lone surrogates, so that the rules can
reject them (yajl replaces them by question marks), and it names the line and column of an error.
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from eagle.errors import InputError, one_line
from eagle.files import check_file, not_json
from eagle.sharegpt.turns import ROW_FIELDS, Rejected
from eagle.tracking import Progress

CHUNK = 2**22  # bytes read at a time
# Characters, about a million tokens. Decoded, many small values take thirty times as much memory.
LONGEST_ROW = 2**22
COMPRESSIONS = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
PARQUET = b"PAR1"
PARQUET_ROWS = 256  # rows in memory at a time
BRACKET_QUOTE_OR_ESCAPE = re.compile(r'["\[\]{}]|\\.', re.DOTALL)
WHITE_SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()


def batches_of_rows(file: Path, progress: Progress) -> Iterator[list[Any]]:
    """Yield all rows of a file, in batches of those that one read completed.

    A row of more than LONGEST_ROW characters is passed over; a `Rejected` stands in its place.

    Args:
        progress: advanced by the megabytes read.

    Raises:
        InputError: the file is absent, empty, damaged or cut off.
    """
    check_file(file)
    with file.open("rb") as raw:
        first = raw.read(4)
        raw.seek(0)
        if first == PARQUET:
            yield from _parquet_rows(raw, file, progress)
        else:
            compression = next(
                (name for magic, name in COMPRESSIONS.items() if first.startswith(magic)), None
            )
            yield from _json_rows(_text(_chunks(raw, compression, file, progress), file), file)


def _chunks(
    raw: BinaryIO, compression: str | None, file: Path, progress: Progress
) -> Iterator[bytes]:
    stream = raw
    if compression is not None:
        import pyarrow  # takes half a second, and plain JSON does not need it

        stream = pyarrow.CompressedInputStream(raw, compression)
    position = 0
    while True:
        try:
            chunk = stream.read(CHUNK)
        except OSError as error:
            raise InputError(
                f"{file}: the {compression} data is damaged or cut off ({error}): get it again"
            ) from None
        if not chunk:
            return
        progress.advance((raw.tell() - position) / 1e6)
        position = raw.tell()
        yield chunk


def _text(chunks: Iterator[bytes], file: Path) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")()  # Windows editors write a byte order mark
    decoded = 0
    while True:
        chunk = next(chunks, b"")
        pending = len(decoder.getstate()[0])  # bytes of a character that the last chunk cut
        try:
            if text := decoder.decode(chunk, final=not chunk):
                yield text
        except UnicodeDecodeError as error:
            raise InputError(
                f"{file}: not UTF-8 text ({error.reason} at byte "
                f"{decoded - pending + error.start}); expected a JSON text file"
            ) from None
        if not chunk:
            return
        decoded += len(chunk)


class _Source:
    """The text that is being decoded, a part of the file, and its position in the file."""

    def __init__(self, pieces: Iterator[str], file: Path):
        self.pieces, self.file = pieces, file
        self.text, self.position, self.ended = "", 0, False  # text[:position] is decoded
        self.line, self.column = 1, 1  # of text[0] in the file

    def read_more(self) -> bool:
        """Drop the decoded text and read on; returns whether there was anything to read."""
        decoded = self.text[: self.position]
        breaks = decoded.count("\n")
        self.column = len(decoded) - decoded.rfind("\n") if breaks else self.column + len(decoded)
        self.line += breaks
        piece = next(self.pieces, "")
        # the text at least doubles, so that a long row is decoded only a few times from its start
        while piece and len(piece) < len(self.text) - self.position:
            following = next(self.pieces, "")
            piece += following
            if not following:
                break
        self.ended = not piece
        self.text, self.position = self.text[self.position :] + piece, 0
        return bool(piece)

    def next_character(self) -> str:
        """Skip white space and return the next character without reading it; empty at the end."""
        while True:
            self.position = WHITE_SPACE.match(self.text, self.position).end()
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.read_more():
                return ""

    def error(self, message: str, position: int, cut_off: bool = False) -> InputError:
        """The error that names line and column of `text[position]`."""
        before = self.text[:position]
        breaks = before.count("\n")
        column = position - before.rfind("\n") if breaks else self.column + position
        return not_json(str(self.file), self.line + breaks, column, message, cut_off)


def _json_rows(pieces: Iterator[str], file: Path) -> Iterator[list[Any]]:
    """The values of one JSON list, or values separated by white space (JSON lines)."""
    source = _Source(pieces, file)
    opening = source.next_character()
    if not opening:
        raise InputError(f"{file}: the file is empty; expected JSON")
    in_list = opening == "["
    if in_list:
        source.position += 1
    batch: list[Any] = []
    text = source.text
    first = True
    while True:
        if source.text is not text and batch:  # new text was read: yield the rows so far
            yield batch
            batch = []
        text = source.text
        following = source.next_character()
        if in_list:
            if following == "]":
                source.position += 1
                if source.next_character():
                    raise source.error("Extra data", source.position)
                break
            if not first:
                if following != ",":
                    raise source.error("Expecting ',' delimiter", source.position, not following)
                source.position += 1
                following = source.next_character()
            if not following:
                raise source.error("Expecting value", source.position, cut_off=True)
        elif not following:
            break
        batch.append(_value(source))
        first = False
    yield batch


def _value(source: _Source) -> Any:
    """Decode one value; read more text as long as the value is incomplete."""
    while True:
        try:
            value, end = DECODER.raw_decode(source.text, source.position)
            if end < len(source.text) or source.ended:  # else more digits of a number may follow
                too_long = end - source.position > LONGEST_ROW
                source.position = end
                return _too_long() if too_long else value
        except json.JSONDecodeError as error:
            # text that is wrong only because it is cut is at most 12 characters: \ud83d\ude42
            unfinished = error.msg.startswith("Unterminated")
            if source.ended or not (unfinished or error.pos > len(source.text) - 12):
                unfinished |= error.pos >= len(source.text.rstrip())
                raise source.error(error.msg, error.pos, cut_off=unfinished) from None
        except RecursionError:
            raise source.error("nested too deeply to be read", source.position) from None
        except ValueError:  # Python's own limit on the digits of an integer
            raise source.error("a number of thousands of digits", source.position) from None
        if len(source.text) - source.position > LONGEST_ROW:
            _skip(source)
            return _too_long()
        source.read_more()


def _too_long() -> Rejected:
    return Rejected(f"row too long: more than {LONGEST_ROW:,} characters")


def _skip(source: _Source) -> None:
    """Pass over one list, object or text, of which no more is in memory than is read at a time.

    Raises:
        InputError: it does not end, or is none of them.
    """
    if source.text[source.position] not in '[{"':
        raise source.error("a number or name without end", source.position)
    depth, in_text = 0, False
    while True:
        end = source.position
        for match in BRACKET_QUOTE_OR_ESCAPE.finditer(source.text, end):
            end = match.end()
            if in_text:
                in_text = match[0] != '"'
            elif match[0] == '"':
                in_text = True
            else:
                depth += 1 if match[0] in "[{" else -1
            if depth == 0 and not in_text:
                source.position = end
                return
        cut_escape = source.text.endswith("\\") and end < len(source.text)
        source.position = len(source.text) - cut_escape
        if not source.read_more():
            raise source.error("a row without end", len(source.text), cut_off=True)


def _parquet_rows(raw: BinaryIO, file: Path, progress: Progress) -> Iterator[list[Any]]:
    """The rows of a Parquet file, as dictionaries.

    A column that no rule reads may hold what Python cannot: its value is True where there is one.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(raw)
        size = check_file(file) / 1e6 / max(1, table.metadata.num_rows)
        for batch in table.iter_batches(PARQUET_ROWS):
            progress.advance(size * batch.num_rows)
            if batch.nbytes > LONGEST_ROW:
                for number in range(batch.num_rows):
                    row = batch.slice(number, 1)
                    yield [_too_long()] if row.nbytes > LONGEST_ROW else _parquet_batch(row)
            else:
                yield _parquet_batch(batch)
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError) as error:
        raise InputError(
            f"{file}: not readable as Parquet: {one_line(error)}; get it again"
        ) from None


def _parquet_batch(batch) -> list[Any]:
    """The rows of a batch of a Parquet table."""
    rows: list[dict] = [{} for _ in range(batch.num_rows)]
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in ROW_FIELDS:
            values = column.to_pylist()
        else:
            values = [valid or None for valid in column.is_valid().to_pylist()]
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows
