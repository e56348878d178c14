"""Packages that are not always installed, and what brings them."""

from __future__ import annotations

# Package that may be missing → the extra that brings it.
EXTRAS = {
    "skimage": "image",
    "transformers": "text",
    "tokenizers": "text",
    "sklearn": "tabular",
    "pandas": "tabular",
    "shapiq": "interactions",
    "cv2": "sift",
    "yaml": "study",
    "fastapi": "app",
    "pydantic": "app",
    "uvicorn": "app",
    "pyarrow": "bulk",
    "joblib": "tabular",
    "skops": "skops",
    "openpyxl": "excel",
    "ray": "ray",
}


def missing(error: ImportError) -> str:
    package = (error.name or "").split(".")[0]
    return f"this needs {package}: pip install 'apportion[{EXTRAS.get(package, package)}]'"
