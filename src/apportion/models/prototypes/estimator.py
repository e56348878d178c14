"""ProtoPNet as an estimator: fit, predict, explain, save."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from apportion.core.classifier import Classifier
from apportion.core.features import Features, ImageFeatures, TabularFeatures
from apportion.core.files import damage_named, path_of
from apportion.core.target import Target
from apportion.core.trees import all_finite
from apportion.domains.image import ImagePreparation
from apportion.errors import InputError, check_seed, check_whole, did_you_mean
from apportion.models import SHIPPED
from apportion.models import load_classifier as shipped
from apportion.models.prototypes import _fast as fast
from apportion.models.prototypes import _training as training
from apportion.models.prototypes._backbone_features import CHUNK, Grids, compute_grids, device_of
from apportion.models.prototypes._checkpoint import backbone_digest, checkpoint_of, learnt_tensors
from apportion.models.prototypes._gallery import Gallery, gallery
from apportion.models.prototypes._images import (
    Encode,
    Images,
    check_for_training,
    images_of,
    labels_of,
    one_image,
)
from apportion.models.prototypes._network import Backbone, PrototypeNet
from apportion.models.prototypes._reasons import Patch, Reasons, patches_of, reasons
from apportion.models.prototypes._reasons_as_data import panels
from apportion.models.prototypes._saving import SavedState, load, rebuild, save
from apportion.models.prototypes.methods import OVER
from apportion.models.prototypes.quality import Quality, quality
from apportion.models.prototypes.settings import Fast, Recipe, recipe_of
from apportion.results.explanation import Explanation


class ProtoPNet:
    """A classifier that says "this looks like that" (Chen et al. 2019), on any backbone with a grid of features.

    The backbone stays as it is, and its grids are computed once and kept (4 · channels · rows · columns bytes an
    image), or with `tune` a copy of it learns.

    After `fit`: `net_`, `classes_`, `sources_` (the patch that each prototype is), `history_` and `skipped_`.

    Args:
        backbone (Module or Classifier): Its output, or that of `layer`, is a grid or the tokens of one. The
            preparation of a `Classifier` is used for files and pictures.
        prototypes_per_class (int, default 10): Prototypes of each class, before pruning.
        recipe (str or Paper or Fast, default "paper"): "paper", "frozen" (the same for some thousand images or fewer
            on a frozen backbone), "fast", or settings.
        tune (bool, default False): Let a copy of the backbone learn: those of its parameters that require gradients,
            or all where none does.
        layer (str, default None): Module of the backbone whose output is taken; None: its own, or its last with a
            grid.
        preparation (callable, default None): Turns a file or picture into a model input; None: that of the
            `Classifier`.
        seed (int, default 0): Seed of all that is random.

    >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 2
    >>> model = ProtoPNet(nn.Conv2d(1, 4, 3), prototypes_per_class=2, recipe="fast").fit(images, labels)
    >>> model.predict(images).shape, bool(model.explain(images[:1]).remainder.abs() < 1e-4)
    ((20,), True)
    """

    net_: PrototypeNet
    classes_: npt.NDArray[Any]
    sources_: tuple[Patch, ...]
    history_: list[dict[str, Any]]
    skipped_: tuple[str, ...]
    shape_: tuple[int, ...]

    def __init__(
        self,
        backbone: nn.Module | Classifier,
        prototypes_per_class: int = 10,
        *,
        recipe: str | Recipe = "paper",
        tune: bool = False,
        layer: str | None = None,
        preparation: Encode | None = None,
        seed: int = 0,
    ) -> None:
        self.preparation: Any = preparation
        self.shipped: str | None = None
        module: Any = backbone
        if isinstance(backbone, Classifier):
            self.preparation = preparation or backbone.encode
            self.shipped = backbone.name if backbone.name in SHIPPED else None
            module = backbone.model if backbone.domain == "image" else None
        if not isinstance(module, nn.Module):
            raise InputError(
                f"backbone is {type(backbone).__name__}; accepted: a torch module or a Classifier of images"
            )
        recipe = recipe_of(recipe)
        check_whole(1, prototypes_per_class=prototypes_per_class)
        check_seed(seed)
        if not isinstance(tune, bool):
            raise InputError(f"tune is {tune!r}; accepted: True or False")
        if not isinstance(layer, str | None):
            raise InputError(f"layer is {layer!r}; accepted: the name of a module, such as 'layer4'")
        if tune and isinstance(recipe, Fast):
            raise InputError(
                "tune=True was given with the fast recipe, which learns no backbone; accepted: recipe='paper'"
            )
        self.backbone, self.prototypes_per_class, self.recipe = module, prototypes_per_class, recipe
        self.tune, self.layer, self.seed = tune, layer, seed

    def fit(
        self,
        images: Any,
        labels: Any = None,
        *,
        classes: Sequence[Any] | None = None,
        checkpoint: str | Path | None = None,
    ) -> ProtoPNet:
        """Learn prototypes from images.

        Args:
            images (array or list or path or Dataset): A float array (n, channels, height, width) as the backbone
                takes it, a list of pictures or files, a folder with a folder for each class, or a PyTorch dataset.
            labels (sequence, default None): Class of each image; None: the folder or the dataset says it.
            classes (sequence, default None): Names of the classes, where not all labels need occur; None: those that
                do.
            checkpoint (path, default None): File that the paper's recipe writes after every epoch; where it is there
                already, training goes on from it, to the same result as without the interruption. None: none is
                written.
        """
        data = images_of(images, labels, self.preparation, classes)
        check_for_training(data)
        backbone = self._backbone(data.read(torch.zeros(1, dtype=torch.long)))
        numbers = labels_of(data).to(device_of(backbone))
        grids = Grids(data, backbone) if self.tune else compute_grids(data, backbone)
        many, per_class = len(data.classes), self.prototypes_per_class
        grids.check(numbers, many, per_class)
        if isinstance(self.recipe, Fast):
            if checkpoint is not None:
                raise InputError(
                    "checkpoint was given with the fast recipe, which takes no epochs; leave it out"
                )
            found = fast.train(grids, numbers, many, per_class, self.recipe, self.seed)
        else:
            asked = {"recipe": repr(self.recipe), "prototypes_per_class": per_class, "seed": self.seed}
            place = None
            if checkpoint is not None:
                place = checkpoint_of(Path(checkpoint), asked, self.tune, data, backbone)
            found = training.train(grids, numbers, many, per_class, self.recipe, self.tune, self.seed, place)
        self.net_, self.history_, self.skipped_ = found.net, found.history, data.skipped
        self.shape_ = tuple(data.read(torch.zeros(1, dtype=torch.long)).shape[1:])
        self.classes_ = np.array(data.classes)
        self.sources_ = tuple(patches_of(found.net, data, found.image.cpu(), torch.arange(len(found.image))))
        self.net_.named = self._named()
        return self

    def predict(self, images: Any) -> npt.NDArray[Any]:
        """The class of each image, as the labels named it."""
        chosen = self.predict_proba(images).argmax(1)
        return self.classes_[chosen]  # type: ignore[no-any-return]

    def predict_proba(self, images: Any) -> npt.NDArray[np.float32]:
        """(n, classes) probabilities."""
        data = self._read(images)
        with torch.no_grad():
            parts = [
                self.net_(x.to(device_of(self.net_))).softmax(1)
                for _, x in data.batches(CHUNK, "predictions")
            ]
        found = torch.cat(parts).cpu().numpy()
        if not np.isfinite(found).all():
            raise InputError(
                "the network gives scores that are NaN or infinite for images whose numbers are finite"
            )
        return found

    def score(self, images: Any, labels: Any = None) -> float:
        """The share of images whose class is predicted right."""
        data = self._read(images, labels, known=True)
        return float((self.predict_proba(data).argmax(1) == labels_of(data).numpy()).mean())

    def explain(
        self, image: Any, target: Target | str = None, over: Any = "prototypes"
    ) -> Explanation[Tensor, Tensor]:
        """Explain one image, or a batch as a float array.

        Args:
            image (image or array): One image, or a batch.
            target (int or str, default None): A number is a place in `classes_`, as for every method; a text is a
                class's name; None: the predicted class.
            over (str or method, default "prototypes"): "prototypes", or over pixels: "upsampled" or "lrp" (or a
                method with settings, such as `PrototypeLRP("epsilon-gamma-box")`).
        """
        data = self._read(one_image(image))
        method = OVER.get(over) if isinstance(over, str) else over
        if not callable(method):
            raise InputError(f"over is {over!r}; accepted: {', '.join(OVER)}, or a method with settings")
        x = data.read(torch.arange(len(data))).to(device_of(self.net_))
        explanation: Explanation[Tensor, Tensor] = method(self.net_, x, self._target(target))
        named = self._named()
        labels = [str(name) for name in self.classes_.tolist()]
        if getattr(method, "prototype", None) is not None:
            labels = list(named.columns)
        features: Sequence[Features] | None = explanation.features
        if features is None:
            features = [ImageFeatures(data.show(i), data.names[i]) for i in range(len(data))]
        return explanation.with_features(features, labels)

    def reasons(self, image: Any, target: int | str | None = None, top: int = 10) -> Reasons:
        """The prototypes that contribute most to the score of one image, with their patches in both images;
        `target` as for `explain`."""
        data = self._read(one_image(image))
        check_whole(1, top=top)
        if len(data) != 1:
            raise InputError(f"image holds {len(data)} images; accepted: one")
        x = data.read(torch.zeros(1, dtype=torch.long)).to(device_of(self.net_))
        wanted: Any = self._target(target)
        known = isinstance(wanted, int) and not isinstance(wanted, bool) and 0 <= wanted < len(self.classes_)
        if not known and wanted is not None:
            most = len(self.classes_) - 1
            raise InputError(f"target is {target!r}; accepted: a class, by its number (0 to {most}) or name")
        names = [str(name) for name in self.classes_.tolist()]
        return reasons(self.net_, x, data.show(0), data.names[0], wanted, names, self.sources_, top)

    def panels(self, image: Any, target: int | str | None = None, top: int = 10) -> list[dict[str, Any]]:
        """The same as plain data: see `apportion.models.prototypes._reasons_as_data.panels`."""
        return panels(self.reasons(image, target, top))

    def gallery(self, label: Any, k: int = 5, **sets: Any) -> Gallery:
        """Every prototype of a class, by its label, with its k nearest patches in each named set of images, such as
        `gallery("tulip", train="flowers/train", test=(images, labels))`."""
        self._check_fitted()
        number = self._class_number(label)
        pairs = {name: s if isinstance(s, tuple) and len(s) == 2 else (s, None) for name, s in sets.items()}
        read = {name: self._read(one, labels) for name, (one, labels) in pairs.items()}
        return gallery(self.net_, number, str(self.classes_[number]), self.sources_, read, k)

    def quality(self, images: Any, labels: Any = None, k: int = 10, noise: float = 0.1) -> Quality:
        """How pure and how stable the prototypes are on labelled images: see `Quality`."""
        return quality(self.net_, self._read(images, labels, known=True), k, noise)

    def classifier(self, name: str = "protopnet") -> Classifier:
        """The fitted network as a `Classifier`, for every other method and for the command line."""
        self._check_fitted()
        labels = tuple(str(label) for label in self.classes_.tolist())
        encode = self.preparation or ImagePreparation()
        return Classifier(self.net_, encode, labels, "image", name, panels=self.panels)

    def save(self, path: str | Path) -> Path:
        """Write what was learnt, and the pictures that prototypes come from, as one safetensors file; a frozen
        backbone is not in it. If that is a model that ships, the file is a model for the command line:
        `apportion explain photo.jpg --model flowers.safetensors`."""
        self._check_fitted()
        settings = {
            "prototypes_per_class": self.prototypes_per_class,
            "recipe": self.recipe,
            "tune": self.tune,
            "layer": self.layer,
            "seed": self.seed,
            "preparation": self.preparation,
        }
        state = SavedState(
            learnt_tensors(self.net_, self.tune),
            self.shape_,
            backbone_digest(self.net_.backbone),
            self.shipped,
            self.classes_.tolist(),
            self.sources_,
            self.history_,
            self.skipped_,
        )
        return save(path_of("path", path), settings, state)

    @classmethod
    def load(
        cls,
        path: str | Path,
        backbone: nn.Module | Classifier | None = None,
        *,
        preparation: Encode | None = None,
    ) -> ProtoPNet:
        """What `save` wrote, on its backbone, which may be left out if it ships. Raises InputError for another
        file or another backbone."""
        file = path_of("path", path)
        with damage_named(file, "fitted ProtoPNet"):
            settings, state = load(file, preparation)
            if backbone is None and state.shipped is None:
                raise InputError(
                    f"{path} was fitted on a backbone of your own; accepted: ProtoPNet.load(path, backbone), on the "
                    "command line in a factory that returns its .classifier() (file.py:factory)"
                )
            made = cls(shipped(str(state.shipped)) if backbone is None else backbone, **settings)
            inner = made._backbone(torch.zeros(1, *state.shape))
            if not made.tune and backbone_digest(inner) != state.backbone:
                raise InputError(f"the backbone is not the one that {path} was fitted on: its weights differ")
            made.net_, made.shape_ = rebuild(inner, state.learnt), state.shape
            made.classes_, made.sources_ = np.array(state.classes), state.sources
            made.history_, made.skipped_ = state.history, state.skipped
            made.net_.named = made._named()
            scores = made.net_(torch.zeros(1, *state.shape))
            if scores.shape != (1, len(state.classes)) or not state.classes or not all_finite(scores):
                raise InputError("the network in it gives no finite score for each class")
            return made

    # ---- checks ----

    def _read(self, images: Any, labels: Any = None, known: bool = False) -> Images:
        """Images with as many channels as those that were fitted; other sizes are welcome. With `known` their
        labels must be of the classes."""
        self._check_fitted()
        data = images_of(images, labels, self.preparation, self.classes_.tolist() if known else None)
        shape = tuple(data.read(torch.zeros(1, dtype=torch.long)).shape[1:])
        if shape[0] != self.shape_[0]:
            raise InputError(
                f"images have shape {shape}; accepted: {self.shape_[0]} channels, as {self.shape_}, or "
                "pictures with a preparation= that makes them so"
            )
        return data

    def _backbone(self, example: Tensor) -> Backbone:
        """A copy of the user's module, so that training, eval mode and `requires_grad` never reach it."""
        module = copy.deepcopy(self.backbone).eval()
        if not self.tune:
            module.requires_grad_(False)
        return Backbone(module, example.to(device_of(module)), self.layer)

    def _check_fitted(self) -> None:
        if not hasattr(self, "net_"):
            raise InputError(
                "this ProtoPNet is not fitted; call fit(images, labels), or ProtoPNet.load(path, backbone)"
            )

    def _class_number(self, label: Any) -> int:
        names = [str(name) for name in self.classes_.tolist()]
        if str(label) in names:
            return names.index(str(label))
        hint = did_you_mean(str(label), names)
        raise InputError(f"there is no class {label!r}; {hint}accepted: {', '.join(names[:20])}")

    def _target(self, target: Target | str) -> Target:
        return self._class_number(target) if isinstance(target, str) else target

    def _named(self) -> TabularFeatures:
        """Each prototype with its class, and the training image that it comes from."""
        classes = [str(self.classes_[int(c)]) for c in self.net_.class_of]
        columns = tuple(f"prototype {j} of {label}" for j, label in enumerate(classes))
        cells = tuple(Path(patch.name).name for patch in self.sources_)
        return TabularFeatures(columns, cells, tuple(range(len(columns))))
