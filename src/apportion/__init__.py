"""Explanations that add up: what a model decided, why, and what the explanation leaves out."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from apportion.bulk.reading import open_run as open_run
    from apportion.bulk.run import explain_dataset as explain_dataset
    from apportion.domains import Classifier as Classifier
    from apportion.errors import InputError as InputError
    from apportion.explaining import explain as explain
    from apportion.explanation import Explanation as Explanation
    from apportion.faithfulness.comparison import compare as compare
    from apportion.faithfulness.complexity import Complexity as Complexity
    from apportion.faithfulness.complexity import EffectiveComplexity as EffectiveComplexity
    from apportion.faithfulness.complexity import Sparseness as Sparseness
    from apportion.faithfulness.fidelity import Completeness as Completeness
    from apportion.faithfulness.fidelity import Infidelity as Infidelity
    from apportion.faithfulness.flipping import ROAD as ROAD
    from apportion.faithfulness.flipping import Deletion as Deletion
    from apportion.faithfulness.flipping import DeletionRate as DeletionRate
    from apportion.faithfulness.flipping import Insertion as Insertion
    from apportion.faithfulness.flipping import PixelFlipping as PixelFlipping
    from apportion.faithfulness.maps import references as references
    from apportion.faithfulness.plausibility import AUPRC as AUPRC
    from apportion.faithfulness.plausibility import IoU as IoU
    from apportion.faithfulness.plausibility import PointingGame as PointingGame
    from apportion.faithfulness.plausibility import RelevanceMass as RelevanceMass
    from apportion.faithfulness.plausibility import RelevanceRank as RelevanceRank
    from apportion.faithfulness.plausibility import TokenF1 as TokenF1
    from apportion.faithfulness.randomisation import ParameterRandomisation as ParameterRandomisation
    from apportion.faithfulness.randomisation import RandomLogit as RandomLogit
    from apportion.faithfulness.rationales import Comprehensiveness as Comprehensiveness
    from apportion.faithfulness.rationales import Sufficiency as Sufficiency
    from apportion.faithfulness.retraining import KAR as KAR
    from apportion.faithfulness.retraining import ROAR as ROAR
    from apportion.faithfulness.retraining import FFidelity as FFidelity
    from apportion.faithfulness.scores import Scores as Scores
    from apportion.faithfulness.sensitivity import LocalLipschitz as LocalLipschitz
    from apportion.faithfulness.sensitivity import MaxSensitivity as MaxSensitivity
    from apportion.faithfulness.shuffle import ShuffleTVD as ShuffleTVD
    from apportion.faithfulness.soft import SoftComprehensiveness as SoftComprehensiveness
    from apportion.faithfulness.soft import SoftSufficiency as SoftSufficiency
    from apportion.faithfulness.weak_learner import WeakLearner as WeakLearner
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
    from apportion.methods.relevance.composites import Composite as Composite
    from apportion.methods.relevance.lrp import LRP as LRP
    from apportion.methods.relevance.rules import AlphaBeta as AlphaBeta
    from apportion.methods.relevance.rules import Box as Box
    from apportion.methods.relevance.rules import Epsilon as Epsilon
    from apportion.methods.relevance.rules import Flat as Flat
    from apportion.methods.relevance.rules import Gamma as Gamma
    from apportion.methods.relevance.rules import Proportional as Proportional
    from apportion.methods.relevance.rules import WSquare as WSquare
    from apportion.methods.relevance.rules import Zero as Zero
    from apportion.methods.rise import RISE as RISE
    from apportion.methods.smoothing import smooth as smooth
    from apportion.methods.surrogate import LIME as LIME
    from apportion.methods.surrogate import KernelSHAP as KernelSHAP
    from apportion.methods.taylor import Taylor as Taylor
    from apportion.models import load as load
    from apportion.models.bag_of_words.classifier import BagOfWords as BagOfWords
    from apportion.models.bag_of_words.method import KernelDecomposition as KernelDecomposition
    from apportion.models.prototypes.estimator import ProtoPNet as ProtoPNet
    from apportion.partitions import Channels as Channels
    from apportion.partitions import Columns as Columns
    from apportion.partitions import Patches as Patches
    from apportion.partitions import Pixels as Pixels
    from apportion.partitions import Superpixels as Superpixels
    from apportion.partitions import Tokens as Tokens
    from apportion.partitions import Words as Words
    from apportion.replacements import Background as Background
    from apportion.replacements import Blur as Blur
    from apportion.replacements import Constant as Constant
    from apportion.replacements import Delete as Delete
    from apportion.replacements import Mean as Mean
    from apportion.replacements import NoisyLinear as NoisyLinear
    from apportion.replacements import Quartiles as Quartiles
    from apportion.replacements import RegionMean as RegionMean
    from apportion.target import Contrast as Contrast

__version__ = "0.1.0"

# Public name → module; imported when first used, so that `import apportion` stays light.
_PLACES = {
    "AUPRC": "faithfulness.plausibility",
    "AlphaBeta": "methods.relevance.rules",
    "AttentionWeights": "methods.attention",
    "Background": "replacements",
    "BagOfWords": "models.bag_of_words.classifier",
    "Blur": "replacements",
    "Box": "methods.relevance.rules",
    "Channels": "partitions",
    "Classifier": "domains",
    "Columns": "partitions",
    "Completeness": "faithfulness.fidelity",
    "Complexity": "faithfulness.complexity",
    "Composite": "methods.relevance.composites",
    "Comprehensiveness": "faithfulness.rationales",
    "Constant": "replacements",
    "Contrast": "target",
    "Deconvnet": "methods.gradient",
    "DeepLIFT": "methods.deeplift",
    "Delete": "replacements",
    "Deletion": "faithfulness.flipping",
    "DeletionRate": "faithfulness.flipping",
    "EffectiveComplexity": "faithfulness.complexity",
    "Epsilon": "methods.relevance.rules",
    "Explanation": "explanation",
    "FFidelity": "faithfulness.retraining",
    "Flat": "methods.relevance.rules",
    "Gamma": "methods.relevance.rules",
    "GradCAM": "methods.cam",
    "GradCAMPlusPlus": "methods.cam",
    "GuidedBackprop": "methods.gradient",
    "Infidelity": "faithfulness.fidelity",
    "InputError": "errors",
    "InputHessian": "methods.pairwise",
    "InputXGradient": "methods.gradient",
    "Insertion": "faithfulness.flipping",
    "IntegratedGradients": "methods.path",
    "IntegratedHessians": "methods.hessian",
    "Interactions": "interactions",
    "IoU": "faithfulness.plausibility",
    "KAR": "faithfulness.retraining",
    "KernelDecomposition": "models.bag_of_words.method",
    "KernelSHAP": "methods.surrogate",
    "LIME": "methods.surrogate",
    "LRP": "methods.relevance.lrp",
    "LayerCAM": "methods.cam",
    "LocalLipschitz": "faithfulness.sensitivity",
    "MaxSensitivity": "faithfulness.sensitivity",
    "Mean": "replacements",
    "NoisyLinear": "replacements",
    "Occlusion": "methods.occlusion",
    "ParameterRandomisation": "faithfulness.randomisation",
    "Patches": "partitions",
    "PixelFlipping": "faithfulness.flipping",
    "Pixels": "partitions",
    "PointingGame": "faithfulness.plausibility",
    "Proportional": "methods.relevance.rules",
    "ProtoPNet": "models.prototypes.estimator",
    "Quartiles": "replacements",
    "RISE": "methods.rise",
    "ROAD": "faithfulness.flipping",
    "ROAR": "faithfulness.retraining",
    "RandomLogit": "faithfulness.randomisation",
    "RegionMean": "replacements",
    "RelevanceMass": "faithfulness.plausibility",
    "RelevanceRank": "faithfulness.plausibility",
    "Saliency": "methods.gradient",
    "Scores": "faithfulness.scores",
    "ShapleyInteractions": "methods.pairwise",
    "ShuffleTVD": "faithfulness.shuffle",
    "SmoothGrad": "methods.gradient",
    "SoftComprehensiveness": "faithfulness.soft",
    "SoftSufficiency": "faithfulness.soft",
    "Sparseness": "faithfulness.complexity",
    "Sufficiency": "faithfulness.rationales",
    "Superpixels": "partitions",
    "Taylor": "methods.taylor",
    "TokenF1": "faithfulness.plausibility",
    "Tokens": "partitions",
    "VarGrad": "methods.gradient",
    "WSquare": "methods.relevance.rules",
    "WeakLearner": "faithfulness.weak_learner",
    "Words": "partitions",
    "Zero": "methods.relevance.rules",
    "compare": "faithfulness.comparison",
    "explain": "explaining",
    "explain_dataset": "bulk.run",
    "load": "models",
    "open_run": "bulk.reading",
    "references": "faithfulness.maps",
    "smooth": "methods.smoothing",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> _Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'apportion' has no attribute {name!r}")
    return getattr(_import_module(f"apportion.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
