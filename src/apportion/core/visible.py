"""Names and texts that come from files, as a terminal may show them."""

from __future__ import annotations

import re

# C0, C1 and DEL but for tabs and line ends; what turns the direction of what follows; and other ends of lines.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text without the characters that a terminal obeys instead of showing them.

    >>> visible("\\x1b[2Jcat\\n")
    '[2Jcat\\n'
    """
    return _CONTROLS.sub("", text)


def visible_json(text: str) -> str:
    """JSON with these characters in the form of their numbers, which says the same.

    >>> print(visible_json('["\x9b2J"]'))
    ["\\u009b2J"]
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
