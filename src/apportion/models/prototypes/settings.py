"""How a ProtoPNet is trained: the paper's recipe with the authors' values, and a fast one."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from apportion.errors import InputError


def _check(settings: Any, positive: tuple[str, ...]) -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("last", "pruning"):  # settings of their own, which are checked already
            continue
        low = 1 if field.name in positive else 0
        if field.type == "bool":
            if not isinstance(value, bool):
                raise InputError(f"{field.name} is {value!r}; accepted: True or False")
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value < float("inf") or (field.type == "int" and value != int(value)):
            kind = "a whole number" if field.type == "int" else "a number"
            raise InputError(
                f"{field.name} is {value!r}; accepted: {kind} {f'of at least {low}' if low else 'from 0 on'}"
            )


@dataclass(frozen=True)
class Pruning:
    """The rule for prototypes to drop after the last push (Chen et al. 2019, supplement S8).

    A prototype is dropped if too few of its nearest training images are of its class. Prototypes that are the same
    patch become one.

    Attributes:
        nearest (int, default 6): Nearest training images that are looked at.
        own (int, default 3): Images among them that must be of the prototype's class.
    """

    nearest: int = 6
    own: int = 3

    def __post_init__(self) -> None:
        _check(self, ("nearest",))
        if self.own > self.nearest:
            raise InputError(f"own is {self.own}, more than nearest={self.nearest}; accepted: at most that")


@dataclass(frozen=True)
class LastLayer:
    """The convex last layer, solved by FISTA.

    It minimises mean cross-entropy + `l1` · Σ |w| over the weights to other classes + `ridge` / 2 · Σ w² over all.
    The authors have no ridge; without one, weights grow as long as they separate the classes.

    Attributes:
        l1 (float, default 1e-4): Weight of the absolute values.
        ridge (float, default 0.0): Weight of the squares.
        tolerance (float, default 1e-4): Largest entry of a step, in units of the gradient, at which it is solved.
        iterations (int, default 2000): Steps at most.
    """

    l1: float = 1e-4
    ridge: float = 0.0
    tolerance: float = 1e-4
    iterations: int = 2000

    def __post_init__(self) -> None:
        _check(self, ("iterations",))


@dataclass(frozen=True)
class Paper:
    """The recipe of Chen et al. 2019, with the authors' values.

    Loss: cross-entropy + `cluster` · distance to the nearest prototype of the own class − `separation` · distance to
    the nearest of another + `last.l1` · |weights to other classes| (eq. 1-2). Adam trains add-on layers and
    prototypes first, then all jointly. At every push, and at the end, prototypes become their nearest patches and the
    last layer is solved.

    Three settings are not the authors'; with their defaults nothing is changed. They took 30 augmented copies of each
    image, which a frozen backbone's kept grids cannot have: `passes` and `hidden` stand in their stead, and
    `standardise` helps where a sigmoid would begin nearly flat on a backbone's own scale.

    Attributes:
        width (int, default 128): Channels of the add-on layers and prototypes.
        epochs (int, default 20): Epochs of training.
        warm_epochs (int, default 5): First epochs, which leave the backbone alone.
        push_from (int, default 10): Epoch after which prototypes are pushed first.
        push_every (int, default 10): Epochs between pushes.
        batch (int, default 80, images): Batch size.
        rate (float, default 3e-3): Learning rate of add-on layers and prototypes.
        backbone_rate (float, default 1e-4): Learning rate of the backbone.
        decay (float, default 0.1): Factor of the joint rates every `decay_every` epochs.
        decay_every (int, default 5): Epochs between these.
        weight_decay (float, default 1e-3): Weight decay of backbone and add-on layers.
        cluster (float, default 0.8): Weight of the distance to the own class.
        separation (float, default 0.08): Weight of the distance to other classes.
        passes (int, default 1): Passes over the images in an epoch.
        hidden (float, default 0.0): Share of the patches of an image that is left out at random in every step, as by
            random crops.
        standardise (bool, default False): Start the add-on layers on channels of mean 0 and deviation 1.
        last (LastLayer, default LastLayer()): How the last layer is solved.
        pruning (Pruning, default Pruning()): Which prototypes are dropped at the end; None: none.

    >>> Paper(epochs=0)
    Traceback (most recent call last):
    ...
    apportion.errors.InputError: epochs is 0; accepted: a whole number of at least 1
    """

    width: int = 128
    epochs: int = 20
    warm_epochs: int = 5
    push_from: int = 10
    push_every: int = 10
    batch: int = 80
    rate: float = 3e-3
    backbone_rate: float = 1e-4
    decay: float = 0.1
    decay_every: int = 5
    weight_decay: float = 1e-3
    cluster: float = 0.8
    separation: float = 0.08
    passes: int = 1
    hidden: float = 0.0
    standardise: bool = False
    last: LastLayer = LastLayer()
    pruning: Pruning | None = Pruning()

    def __post_init__(self) -> None:
        _check(self, ("width", "epochs", "push_every", "batch", "decay_every", "passes"))
        if self.hidden >= 1:
            raise InputError(f"hidden is {self.hidden!r}; accepted: a share from 0 to below 1")

    def pushes_after(self, epoch: int) -> bool:
        """True if prototypes are pushed when so many epochs are done."""
        regular = epoch >= self.push_from and (epoch - self.push_from) % self.push_every == 0
        return regular or epoch == self.epochs


@dataclass(frozen=True)
class Fast:
    """A recipe for frozen backbones without gradients.

    Candidates are the k-medoids of the patches of a class, so that they are real patches from the start; the last
    layer is solved for all of them, those with the largest weights to their class become prototypes, and it is solved
    again for these. The similarity is the cosine of patches less the mean patch, since all patches of a ReLU network
    point much the same way.

    Attributes:
        candidates (int, default 4): Candidates for each prototype.
        patches (int, default 20_000): Patches of each class, drawn at random, that are clustered at most.
        rounds (int, default 50): Rounds of the clustering at most.
        last (LastLayer, default LastLayer(l1=2e-5, ridge=4e-5)): How the last layer is solved.
        pruning (Pruning, default Pruning()): Which prototypes are dropped at the end; None: none.
    """

    candidates: int = 4
    patches: int = 20_000
    rounds: int = 50
    last: LastLayer = LastLayer(l1=2e-5, ridge=4e-5)
    pruning: Pruning | None = Pruning()

    def __post_init__(self) -> None:
        _check(self, ("candidates", "patches", "rounds"))


Recipe = Paper | Fast

RECIPES: dict[str, Recipe] = {
    "paper": Paper(),
    "frozen": Paper(passes=5, hidden=0.5, standardise=True),
    "fast": Fast(),
}


def recipe_of(given: str | Recipe) -> Recipe:
    """A recipe by its name, or as it is."""
    found = RECIPES.get(given) if isinstance(given, str) else given
    if not isinstance(found, Recipe):
        raise InputError(f"recipe is {given!r}; accepted: {', '.join(RECIPES)}, or settings (Paper, Fast)")
    return found


def settings_class(name: str) -> Any:
    """The class of settings of that name, to read a recipe from its repr."""
    found = {kind.__name__: kind for kind in (Paper, Fast, LastLayer, Pruning)}.get(name)
    if found is None:
        raise InputError(f"there are no settings {name!r}; accepted: Paper, Fast, LastLayer, Pruning")
    return found
