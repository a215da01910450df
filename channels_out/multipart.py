"""Forms with a file, as multipart/form-data (RFC 7578)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f]')


def multipart(fields: Mapping[str, str], name: str, content_type: str, content: bytes) -> tuple[bytes, str]:
    """Return the body and its Content-Type: the fields, and the content as the file `file` of this name."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in fields.items()
    ]
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{_UNSAFE.sub("_", name)}"\r\n'
        f"Content-Type: {content_type}\r\n\r\n"
    )
    body = "".join(parts).encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"
