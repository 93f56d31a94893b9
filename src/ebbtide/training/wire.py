"""Messages between the driver and its workers: length-prefixed MessagePack, arrays included.

Data only: unlike pickle, nothing that arrives can execute.
"""

import struct
from typing import IO, Any

import msgspec
import numpy as np

_LENGTH = struct.Struct("<Q")
_ARRAY = "__array__"


def _encode(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {_ARRAY: [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]}
    raise TypeError(f"cannot send {type(value).__name__}")


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            dtype, shape, data = value[_ARRAY]
            return np.frombuffer(data, dtype).reshape(shape)
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value


def pack(message: dict[str, Any]) -> bytes:
    """A message (dicts, lists, scalars, NumPy arrays) as bytes."""
    return msgspec.msgpack.encode(message, enc_hook=_encode)


def unpack(data: bytes) -> dict[str, Any]:
    """The message in the bytes `data`."""
    return _decode(msgspec.msgpack.decode(data))


def send(stream: IO[bytes], message: dict[str, Any]) -> None:
    """Writes one message, preceded by its length."""
    data = pack(message)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message, or None when the other side has closed the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    return unpack(data) if len(data) == length else None
