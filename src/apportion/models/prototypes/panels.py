"""This looks like that as plain data, for a page that draws it itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from apportion.looks import Box
from apportion.models.prototypes.matches import Reasons


def panels(reasons: Reasons) -> list[dict[str, Any]]:
    """The matches as data for JSON, largest contribution first: `weight` · `similarity` = `contribution`.

    Boxes are [top, bottom, left, right] in shares of height and width, of the explained picture as the model saw
    it and of the training picture, which is a data URI.
    """
    from apportion.markup import data_uri

    return [
        {
            "name": f"prototype {match.prototype} of {match.label}",
            "prototype": match.prototype,
            "class": match.label,
            "similarity": match.similarity,
            "weight": match.connection,
            "contribution": match.contribution,
            "box": _shares(match.box, reasons.picture),
            "source": {
                "name": match.source.name,
                "picture": data_uri(match.source.picture.cpu().numpy()),
                "box": _shares(match.source.box, match.source.picture),
            },
        }
        for match in reasons.matches
    ]


def _shares(box: Box, picture: Tensor) -> list[float]:
    height, width = picture.shape[:2]
    return [side / length for side, length in zip(box, (height, height, width, width), strict=True)]
