"""This looks like that as plain data, for a page that draws it itself."""

from __future__ import annotations

from typing import Any

from apportion.display.sheet import figure
from apportion.models.prototypes._reasons import Reasons


def panels(reasons: Reasons) -> list[dict[str, Any]]:
    """The matches as data for JSON, largest contribution first: `weight` · `similarity` = `contribution`.

    Boxes are [top, bottom, left, right] in shares of height and width, of the explained picture as the model saw
    it and of the training picture, which is a data URI.
    """
    picture, rows = reasons.picture.cpu().numpy(), []
    for match in reasons.matches:
        (here,) = figure("", picture, box=match.box)["pictures"]
        (source,) = match.source.figure("")["pictures"]
        rows.append(
            {
                "name": f"prototype {match.prototype} of {match.label}",
                "prototype": match.prototype,
                "class": match.label,
                "similarity": match.similarity,
                "weight": match.connection,
                "contribution": match.contribution,
                "box": list(here["box"]),
                "source": {"name": match.source.name, "picture": source["src"], "box": list(source["box"])},
            }
        )
    return rows
