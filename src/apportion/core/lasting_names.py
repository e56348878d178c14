"""The names by which fingerprints know what is defined in this package: they stay when a file is moved.

What could be in a fingerprint at commit 85d223a keeps the dotted name that it had there, so that runs begun before
go on; everything newer is `apportion.` and its own name. To rename a class of the first kind, give `_RENAMED` its
new name and the one that it had.
"""

from __future__ import annotations

from typing import Any

_PLACES = {
    "bulk.reading": "Run open_run",
    "bulk.run": "explain_dataset",
    "domains": "Classifier",
    "domains.corpora": "Corpus",
    "domains.documents": "Documents",
    "domains.image": "ImagePreparation from_processor read_image",
    "domains.tabular": "Categorical Numeric TabularPreparation read_row",
    "domains.text": "Token Vocabulary encode_subwords encode_words normalise tokenise",
    "errors": "InputError",
    "explaining": "explain",
    "explanation": "Cost Explanation",
    "faithfulness.comparison": "compare",
    "faithfulness.complexity": "Complexity EffectiveComplexity Sparseness",
    "faithfulness.fidelity": "Completeness Infidelity",
    "faithfulness.flipping": "Deletion DeletionRate Insertion PixelFlipping ROAD",
    "faithfulness.maps": "RandomMap Reversed UniformMap references",
    "faithfulness.plausibility": "AUPRC IoU PointingGame RelevanceMass RelevanceRank TokenF1",
    "faithfulness.randomisation": "ParameterRandomisation RandomLogit",
    "faithfulness.rationales": "Comprehensiveness Sufficiency",
    "faithfulness.retraining": "FFidelity KAR ROAR",
    "faithfulness.scores": "Scores",
    "faithfulness.sensitivity": "LocalLipschitz MaxSensitivity",
    "faithfulness.shuffle": "ShuffleTVD Weighting",
    "faithfulness.soft": "SoftComprehensiveness SoftSufficiency",
    "faithfulness.weak_learner": "WeakLearner",
    "features": "ImageFeatures TabularFeatures TextFeatures",
    "interactions": "Interactions",
    "methods": "Recorded",
    "methods.attention": "AttentionMap AttentionWeights attention_maps",
    "methods.cam": "GradCAM GradCAMPlusPlus LayerCAM",
    "methods.deeplift": "DeepLIFT",
    "methods.gradient": "Deconvnet GuidedBackprop InputXGradient Saliency SmoothGrad VarGrad",
    "methods.hessian": "IntegratedHessians",
    "methods.hiding": "Hiding",
    "methods.occlusion": "Occlusion",
    "methods.pairwise": "InputHessian ShapleyInteractions",
    "methods.path": "IntegratedGradients",
    "methods.relevance.composites": "Composite",
    "methods.relevance.ledger": "Ledger",
    "methods.relevance.lrp": "LRP",
    "methods.relevance.rules": "AlphaBeta Box Epsilon Flat Gamma Proportional WSquare Zero",
    "methods.rise": "RISE",
    "methods.smoothing": "Smoothed smooth",
    "methods.surrogate": "KernelSHAP LIME",
    "methods.taylor": "Taylor",
    "models": "Shipped load",
    "models.bag_of_words.bag": "Bag Bagging Mapped",
    "models.bag_of_words.classifier": "BagOfWords encode",
    "models.bag_of_words.features": "DenseSIFT LocalFeatures PatchStatistics",
    "models.bag_of_words.kernels": "ChiSquared Cosine ExponentialChiSquared Intersection Laplacian Linear Polynomial "
    "RBF Sigmoid",
    "models.bag_of_words.machine": "KernelMachine",
    "models.bag_of_words.mapping": "Fisher Hard Rank Soft",
    "models.bag_of_words.method": "KernelDecomposition",
    "models.bag_of_words.vocabulary": "Mixture",
    "models.digits": "DigitsNet digits",
    "models.efficientnet": "Block EfficientNetLite0 SameConv2d imagenet",
    "models.prototypes.estimator": "ProtoPNet",
    "models.prototypes.explaining": "PrototypeLRP Prototypes Upsampled",
    "models.prototypes.gallery": "Gallery",
    "models.prototypes.images": "Images",
    "models.prototypes.matches": "Match Patch Reasons",
    "models.prototypes.network": "Backbone Centre LinearInPatches PrototypeNet",
    "models.prototypes.quality": "Quality",
    "models.prototypes.settings": "Fast LastLayer Paper Pruning",
    "models.sentiment": "sentiment",
    "models.tabular": "MLP breast_cancer",
    "models.text": "AttentionClassifier TokenMLP",
    "models.training": "Epoch Training",
    "partitions": "Channels Columns Patches Pixels Superpixels Tokens Words",
    "quartiles": "Quartiles",
    "replacements": "Background Blur Constant Delete Mean NoisyLinear RegionMean Replacement",
    "target": "Contrast probabilities",
}

_RENAMED = {
    # A guess of the preparation is the preparation that it was before guesses were told.
    "GuessedPreparation": "apportion.domains.image.ImagePreparation",
    "VisualWords": "apportion.models.bag_of_words.vocabulary.Words",
    "WeightedKernel": "apportion.models.bag_of_words.machine.Part",
}

_SINCE = {
    name: f"apportion.{place}.{name}" for place, names in _PLACES.items() for name in names.split()
} | _RENAMED

# Caches, which say nothing of what a thing is, but were in the fingerprints of 85d223a as they were at first.
# Nor does how often and how fast a function is asked.
CACHES: dict[str, dict[str, Any]] = {
    _SINCE["Quartiles"]: {"_ordered": {}},
    "apportion.Remote": dict.fromkeys(("cache", "budget", "batch", "threads", "retries", "wait")),
}


def lasting_name(of: Any) -> str:
    """The dotted name of a class or function; of ours, one that does not depend on its file.

    >>> import apportion as ap
    >>> lasting_name(ap.LRP).split("."), lasting_name(dict)
    (['apportion', 'methods', 'relevance', 'lrp', 'LRP'], 'builtins.dict')
    """
    module = str(of.__module__)
    if module.partition(".")[0] != "apportion":
        return f"{module}.{of.__qualname__}"
    name, dot, rest = str(of.__qualname__).partition(".")
    return _SINCE.get(name, f"apportion.{name}") + dot + rest
