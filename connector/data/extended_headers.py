"""`ExtendedHeaders`: reads the extended headers of one tar archive, within limits for each and for all together.

A record of a pax header takes five bytes, and a step in Python; what is packed a thousand times smaller holds hundreds
of millions. So headers and records are counted, and what is allowed in all grows with the number of headers.
"""

from __future__ import annotations

from semcut.connector.data.archive_members import RefusedArchiveError

MAX_RECORDS = 1_000
"""Largest number of records of one header: times, owner, name, attributes."""

TOTAL_BYTES, BYTES_EACH = 64 << 20, 4096
"""Largest sum of all extended headers of an archive: 64 MiB, and 4 KiB for each."""

TOTAL_RECORDS, RECORDS_EACH = 1_000_000, 16
"""Largest number of records of an archive, and how many more for each header."""


class ExtendedHeaders:
    """Counts the extended headers of one archive. All methods raise `RefusedArchiveError` at a limit."""

    def __init__(self) -> None:
        self._headers = self._bytes = self._records = 0

    def charge(self, size: int) -> None:
        """Count a header of this many bytes, before it is read."""
        self._headers += 1
        self._bytes += size
        if self._bytes > TOTAL_BYTES + BYTES_EACH * self._headers:
            raise RefusedArchiveError(
                f"its extended headers have more than {TOTAL_BYTES:,} bytes in all; pack it without them "
                "(tar --format=gnu)"
            )

    def pax_records(self, content: bytes) -> dict[str, bytes]:
        r"""Read the records "LENGTH KEY=VALUE\n" of a pax header, as POSIX defines them."""
        records: dict[str, bytes] = {}
        position = count = 0
        while content[position : position + 1] not in (b"", b"\0"):
            count += 1
            if count > MAX_RECORDS or self._records + count > TOTAL_RECORDS + RECORDS_EACH * self._headers:
                raise RefusedArchiveError(
                    f"its extended headers have too many records: expected at most {MAX_RECORDS:,} in one and "
                    f"{TOTAL_RECORDS:,} in all; pack it without them (tar --format=gnu)"
                )
            digits, space, _ = content[position : position + 20].partition(b" ")
            length = int(digits) if space and digits.isdigit() else 0
            record = content[position + len(digits) + 1 : position + length]
            key, equals, value = record.partition(b"=")
            if not record.endswith(b"\n") or not equals or position + length > len(content):
                raise RefusedArchiveError("an extended header is damaged")
            records[key.decode("utf-8", "surrogateescape")] = value[:-1]
            position += length
        self._records += count
        return records
