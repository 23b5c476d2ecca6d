"""Damage and malice in bytes: what chance does to a file, and what somebody writes into it who knows the format."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

SPECIAL = (
    b"\x00", b"\xff", b"\xff\xfe", b"\x1b]0;x\x07", b"[" * 4000, b'{"a":' * 2000, b"9" * 400, b"1e999", b"-0", b"NaN", b"Infinity", b'"',
    b"\\ud800", b"../../x", b"\n", b"\r\n", b",,,,", b"\xe2\x80\xae", b"null", b"true", b"{}", b"[]", b"__import__('os')", b"\x80\x04.",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, 0.5, -0.0, 1e308, 1e-308, "", "x", "../x", "/etc/passwd", "\x00",
    "\x1b[2J", "<script>x</script>", "\u202e", "a" * 5000, [], [[]], {}, {"a": {}}, [None] * 50, "nan", "1",
)  # fmt: skip


def damaged(data: bytes, draw: random.Random) -> bytes:
    """Bytes after one to three accidents."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        at = draw.randrange(len(found) + 1)
        end = min(len(found), at + draw.choice((1, 2, 8, 100)))
        match draw.randrange(8):
            case 0 if at < len(found):
                found[at] ^= 1 << draw.randrange(8)
            case 1:
                found[at:end] = draw.randbytes(end - at)
            case 2:
                del found[at:]
            case 3:
                del found[at:end]
            case 4:
                found[at:at] = found[at:end]
            case 5:
                found[at:at] = draw.choice(SPECIAL)
            case 6:
                found[at:end] = draw.choice(SPECIAL)
            case 7 if len(found) >= 8:  # a length at the head of a file, too large or too small
                found[: draw.choice((1, 2, 4, 8))] = draw.choice((b"\xff" * 8, b"\x00" * 8, draw.randbytes(8)))[
                    : draw.choice((1, 2, 4, 8))
                ]
    return bytes(found)


def twisted(value: Any, draw: random.Random) -> Any:
    """A JSON value with one place changed: another value, a key more, less or of another name."""
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        if isinstance(inner, dict | list):
            for key in list(inner) if isinstance(inner, dict) else range(len(inner)):
                places.append((inner, key))
                walk(inner[key])

    copy = json.loads(json.dumps(value))
    walk(copy)
    if not places:
        return draw.choice(VALUES)
    inner, key = draw.choice(places)
    match draw.randrange(5):
        case 0 | 1 | 2:
            inner[key] = draw.choice(VALUES)
        case 3:
            del inner[key]
        case _:
            kept = inner.pop(key)
            if isinstance(inner, dict):
                inner[draw.choice((f"{key}_", "__class__", "\x1b", "x" * 300))] = kept
    return copy


Maker = Callable[[bytes, random.Random], bytes]
