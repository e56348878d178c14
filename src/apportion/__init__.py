"""Explanations that add up: what a model decided, why, and what the explanation leaves out."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from apportion.bulk.reading import open_run as open_run
    from apportion.bulk.run import explain_dataset as explain_dataset
    from apportion.domains import Classifier as Classifier
    from apportion.errors import InputError as InputError
    from apportion.explanation import Explanation as Explanation
    from apportion.interactions import Interactions as Interactions
    from apportion.methods.attention import AttentionWeights as AttentionWeights
    from apportion.methods.cam import GradCAM as GradCAM
    from apportion.methods.cam import GradCAMPlusPlus as GradCAMPlusPlus
    from apportion.methods.cam import LayerCAM as LayerCAM
    from apportion.methods.deeplift import DeepLIFT as DeepLIFT
    from apportion.methods.gradient import Deconvnet as Deconvnet
    from apportion.methods.gradient import GuidedBackprop as GuidedBackprop
    from apportion.methods.gradient import InputXGradient as InputXGradient
    from apportion.methods.gradient import Saliency as Saliency
    from apportion.methods.gradient import SmoothGrad as SmoothGrad
    from apportion.methods.gradient import VarGrad as VarGrad
    from apportion.methods.hessian import IntegratedHessians as IntegratedHessians
    from apportion.methods.occlusion import Occlusion as Occlusion
    from apportion.methods.pairwise import InputHessian as InputHessian
    from apportion.methods.pairwise import ShapleyInteractions as ShapleyInteractions
    from apportion.methods.path import IntegratedGradients as IntegratedGradients
    from apportion.methods.relevance.lrp import LRP as LRP
    from apportion.methods.rise import RISE as RISE
    from apportion.methods.smoothing import smooth as smooth
    from apportion.methods.surrogate import LIME as LIME
    from apportion.methods.surrogate import KernelSHAP as KernelSHAP
    from apportion.methods.taylor import Taylor as Taylor
    from apportion.models.bag_of_words.classifier import BagOfWords as BagOfWords
    from apportion.models.bag_of_words.method import KernelDecomposition as KernelDecomposition
    from apportion.target import Contrast as Contrast

__version__ = "0.1.0"

# Public name → module; imported when first used, so that `import apportion` stays light.
_PLACES = {
    "AttentionWeights": "methods.attention",
    "BagOfWords": "models.bag_of_words.classifier",
    "Classifier": "domains",
    "Contrast": "target",
    "Deconvnet": "methods.gradient",
    "DeepLIFT": "methods.deeplift",
    "Explanation": "explanation",
    "GradCAM": "methods.cam",
    "GradCAMPlusPlus": "methods.cam",
    "GuidedBackprop": "methods.gradient",
    "InputError": "errors",
    "InputHessian": "methods.pairwise",
    "InputXGradient": "methods.gradient",
    "IntegratedGradients": "methods.path",
    "IntegratedHessians": "methods.hessian",
    "Interactions": "interactions",
    "KernelDecomposition": "models.bag_of_words.method",
    "KernelSHAP": "methods.surrogate",
    "LIME": "methods.surrogate",
    "LRP": "methods.relevance.lrp",
    "LayerCAM": "methods.cam",
    "Occlusion": "methods.occlusion",
    "RISE": "methods.rise",
    "Saliency": "methods.gradient",
    "ShapleyInteractions": "methods.pairwise",
    "SmoothGrad": "methods.gradient",
    "Taylor": "methods.taylor",
    "VarGrad": "methods.gradient",
    "explain": "explaining",
    "explain_dataset": "bulk.run",
    "load": "models",
    "open_run": "bulk.reading",
    "smooth": "methods.smoothing",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> _Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'apportion' has no attribute {name!r}")
    return getattr(_import_module(f"apportion.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
