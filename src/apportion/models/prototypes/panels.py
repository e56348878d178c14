"""This looks like that as plain data, for a page that draws it itself."""

from __future__ import annotations

from typing import Any

from apportion.looks import shares
from apportion.markup import data_uri
from apportion.models.prototypes.matches import Reasons


def panels(reasons: Reasons) -> list[dict[str, Any]]:
    """The matches as data for JSON, largest contribution first: `weight` · `similarity` = `contribution`.

    Boxes are [top, bottom, left, right] in shares of height and width, of the explained picture as the model saw
    it and of the training picture, which is a data URI.
    """
    picture = reasons.picture.cpu().numpy()
    return [
        {
            "name": f"prototype {match.prototype} of {match.label}",
            "prototype": match.prototype,
            "class": match.label,
            "similarity": match.similarity,
            "weight": match.connection,
            "contribution": match.contribution,
            "box": list(shares(match.box, picture)),
            "source": {
                "name": match.source.name,
                "picture": data_uri(match.source.look("").picture),
                "box": list(shares(match.source.box, match.source.look("").picture)),
            },
        }
        for match in reasons.matches
    ]
