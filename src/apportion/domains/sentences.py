"""Where sentences end, by their signs: one rule for scripts with and without spaces between words."""

from __future__ import annotations

import re

from apportion.errors import check

_CLOSING = "[\"'”’»)\\]】〉》」』]*"
# The first kind ends a sentence before white space only (3.5, a.m.), the second wherever it stands.
_END = re.compile(
    rf"(?P<spaced>[.!?…؟۔]+){_CLOSING}(?=\s+(?P<next>\S)|\s*\Z)|[。！？｡．।॥።။។]+{_CLOSING}|\n\s*\n"
)
_SHORT = re.compile(
    r"\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|no|fig|eq|cf|al|approx|e\.g|i\.e|(?-i:[A-HJ-Z]))\.\Z", re.IGNORECASE
)
_LONGEST_SHORT = 8


def sentences(text: str) -> list[str]:
    """Cut a text into its sentences, as `RawText(split=sentences)` takes them.

    A full stop, an exclamation or a question mark ends a sentence before white space, unless a small letter follows or
    an abbreviation or an initial came before; 。！？ and their like end one wherever they stand, and so does an empty
    line. Thai, which has no such signs, is one sentence a paragraph: give a function of your own for it.

    Args:
        text (str): The text.

    >>> sentences("Dr. Who is 3.5 m tall. Is he?  “Yes!” she said.\\n今日は雨。明日は？")
    ['Dr. Who is 3.5 m tall.', 'Is he?', '“Yes!” she said.', '今日は雨。', '明日は？']
    """
    check("text", text, lambda v: isinstance(v, str), "a text")
    found, begin = [], 0
    for match in _END.finditer(text):
        if match["spaced"]:
            before = text[max(begin, match.start() - _LONGEST_SHORT) : match.start() + 1]
            if (match["next"] or "").islower() or (match["spaced"] == "." and _SHORT.search(before)):
                continue
        found.append(text[begin : match.end()].strip())
        begin = match.end()
    return [sentence for sentence in (*found, text[begin:].strip()) if sentence]
