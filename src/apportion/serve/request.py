"""What the page may ask, and what of it is refused: too much, too large, or no picture at all."""

from __future__ import annotations

import base64
import io
import warnings
from typing import Annotated, TypeVar

from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from apportion.domains.answers import Kind
from apportion.domains.image import check_pixels
from apportion.domains.prompts import Unit
from apportion.errors import InputError
from apportion.pipeline import given
from apportion.pipeline.answers import Asked, asked_of

MOST_BYTES = 20_000_000  # of a picture's file
MOST_LETTERS = 20_000


class Given(BaseModel):
    """One input of a model."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=500)
    text: str | None = Field(default=None, max_length=MOST_LETTERS)
    image: str | None = None  # base64
    name: str = Field(default="picture", max_length=200)
    row: dict[str, str] | None = Field(default=None, max_length=2000)

    def recognised(self) -> given.Given:
        """The input as the command line would have recognised it."""
        if self.text is not None:
            return given.Given("text", self.text, self.text)
        if self.row is not None:
            return given.Given("tabular", self.row, "a row")
        if self.image is not None:
            return given.Given("image", read_picture(self.image, self.name), self.name)
        raise InputError("there is no input; accepted: a text, a picture or a row")


class Ask(Given):
    """One input, and the methods that are to explain a model's decision on it."""

    methods: list[str] = Field(min_length=1, max_length=20)
    target: Annotated[str, Field(max_length=200)] | int | None = None  # a name, or a number
    tests: bool = False
    # Of a language model, for which `text` is the prompt, and `target` words of the answer.
    answer: str | None = Field(default=None, max_length=MOST_LETTERS)
    context: list[Annotated[str, Field(max_length=MOST_LETTERS)]] = Field(default=[], max_length=200)
    contrast: str | None = Field(default=None, max_length=MOST_LETTERS)
    unit: Unit | None = None
    score: Kind = "log-probability"
    chat: bool = False
    max_new_tokens: int = Field(default=20, ge=1, le=500)

    def asked(self) -> Asked:
        """What a language model is asked."""
        if self.text is None:
            raise InputError("there is no input; accepted for a language model: a text, the prompt")
        return asked_of(self, prompt=self.text)


Read = TypeVar("Read", bound=Given)


def read(body: bytes, kind: type[Read]) -> Read:
    """The request in a body, or an InputError that names what is wrong with it.

    >>> read(b'{"model": "sentiment", "methods": ["lrp"], "text": "fine"}', Ask).methods
    ['lrp']
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the request"
        raise InputError(f"{place}: {first['msg']}") from None


def read_picture(encoded: str, name: str) -> Image.Image:
    """A picture from base64, whole, and no larger than the limits."""
    if not encoded:
        raise InputError("there is no picture yet: drop one, or choose a file")
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:  # also for letters that are not ASCII
        raise InputError(f"{name} did not arrive whole (its base64 is broken)") from None
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{name} has {len(data) / 1e6:.1f} MB; accepted: pictures of at most {MOST_BYTES / 1e6:.0f} MB"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower
            image = Image.open(io.BytesIO(data))
        check_pixels(image, name)
        image.load()
        return image
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large: {error}") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is not a picture that can be read; accepted: JPEG, PNG, GIF, WebP, …"
        ) from None
    except (OSError, SyntaxError, EOFError, ValueError) as error:  # what decoders raise on damaged data
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is damaged or cut off ({error})") from None
