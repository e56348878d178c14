"""Names and texts that come from files, as a terminal may show them."""

from __future__ import annotations

from apportion.errors import CONTROLS


def visible(text: str) -> str:
    """The text without the characters that a terminal obeys instead of showing them.

    >>> visible("\\x1b[2Jcat\\n")
    '[2Jcat\\n'
    """
    return CONTROLS.sub("", text)


def visible_json(text: str) -> str:
    """JSON with these characters in the form of their numbers, which says the same.

    >>> print(visible_json('["\x9b2J"]'))
    ["\\u009b2J"]
    """
    return CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
