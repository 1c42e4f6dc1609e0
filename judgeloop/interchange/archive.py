"""Members of zip archives, Zstandard included."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from judgeloop.errors import InvalidInput

_ZIP_ZSTANDARD = 93
# A zip archive's local file header (APPNOTE 4.3.7).
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


def zip_member(path: Path, name: str) -> bytes:
    """The bytes of an archive's member, also where it is packed by Zstandard, which zipfile reads only from Python 3.14 on.

    Raises InvalidInput with file and member where it is damaged or packed in another way.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(name)
            if info.compress_type != _ZIP_ZSTANDARD:
                return archive.read(name)
        with path.open("rb") as file:
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER.size)
            *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            file.seek(name_length + extra_length, 1)
            packed = file.read(info.compress_size)
        content = _unzstd(packed)
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        KeyError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise InvalidInput(f"{path}: {name}: cannot be unpacked ({error!s:.80})") from None
    if zlib.crc32(content) != info.CRC:
        raise InvalidInput(f"{path}: {name}: damaged (its checksum is wrong)")
    return content


def _unzstd(packed: bytes) -> bytes:
    """One or several Zstandard frames, end to end."""
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        content: bytes = stream.read()
    return content
