"""An extension of griffe: the examples in docstrings are shown as code."""

import re
from typing import Any

import griffe

# A prompt, and what follows it up to an empty line; an indented block (in "Examples:") is the parser's own.
EXAMPLE = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
