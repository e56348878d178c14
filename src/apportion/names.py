"""Every class that has a name: what it is called, and where it is. Data only: `core/registry.py` imports a class
when it is asked for.

A name belongs to one kind, and only what is listed here can be reached by a name or read from a repr. A new method
is one file and one line here.
"""

# Short name → "module:class", below `apportion`.
METHODS = {
    "saliency": "methods.gradient:Saliency",
    "inputxgradient": "methods.gradient:InputXGradient",
    "smoothgrad": "methods.gradient:SmoothGrad",
    "ig": "methods.path:IntegratedGradients",
    "lrp": "methods.relevance.lrp:LRP",
    "occlusion": "methods.occlusion:Occlusion",
    "vargrad": "methods.gradient:VarGrad",
    "guidedbackprop": "methods.gradient:GuidedBackprop",
    "deconvnet": "methods.gradient:Deconvnet",
    "deeplift": "methods.deeplift:DeepLIFT",
    "lime": "methods.surrogate:LIME",
    "kernelshap": "methods.surrogate:KernelSHAP",
    "rise": "methods.rise:RISE",
    "taylor": "methods.taylor:Taylor",
    "gradcam": "methods.cam:GradCAM",
    "gradcamplusplus": "methods.cam:GradCAMPlusPlus",
    "layercam": "methods.cam:LayerCAM",
    "attention": "methods.attention:AttentionWeights",
}

# Methods that return Interactions.
INTERACTIONS = {
    "ih": "methods.hessian:IntegratedHessians",
    "inputhessian": "methods.pairwise:InputHessian",
    "shapleyinteractions": "methods.pairwise:ShapleyInteractions",
}

# Methods of one kind of model each, beside that model.
OF_ONE_KIND = {
    "kerneldecomposition": "models.bag_of_words.method:KernelDecomposition",
    "prototypes": "models.prototypes.explaining:Prototypes",
    "upsampled": "models.prototypes.explaining:Upsampled",
    "prototypelrp": "models.prototypes.explaining:PrototypeLRP",
}

TESTS = {
    "pixel-flipping": "faithfulness.flipping:PixelFlipping",
    "deletion": "faithfulness.flipping:Deletion",
    "insertion": "faithfulness.flipping:Insertion",
    "deletion-rate": "faithfulness.flipping:DeletionRate",
    "road": "faithfulness.flipping:ROAD",
    "comprehensiveness": "faithfulness.rationales:Comprehensiveness",
    "sufficiency": "faithfulness.rationales:Sufficiency",
    "soft-comprehensiveness": "faithfulness.soft:SoftComprehensiveness",
    "soft-sufficiency": "faithfulness.soft:SoftSufficiency",
    "infidelity": "faithfulness.fidelity:Infidelity",
    "completeness": "faithfulness.fidelity:Completeness",
    "shuffle-tvd": "faithfulness.shuffle:ShuffleTVD",
    "roar": "faithfulness.retraining:ROAR",
    "kar": "faithfulness.retraining:KAR",
    "f-fidelity": "faithfulness.retraining:FFidelity",
    "parameter-randomisation": "faithfulness.randomisation:ParameterRandomisation",
    "random-logit": "faithfulness.randomisation:RandomLogit",
    "max-sensitivity": "faithfulness.sensitivity:MaxSensitivity",
    "local-lipschitz": "faithfulness.sensitivity:LocalLipschitz",
    "sparseness": "faithfulness.complexity:Sparseness",
    "complexity": "faithfulness.complexity:Complexity",
    "effective-complexity": "faithfulness.complexity:EffectiveComplexity",
}

# What is a setting of methods and tests goes by the name of its class.
RULES = {
    "Zero": "methods.relevance.rules:Zero",
    "Epsilon": "methods.relevance.rules:Epsilon",
    "Gamma": "methods.relevance.rules:Gamma",
    "AlphaBeta": "methods.relevance.rules:AlphaBeta",
    "WSquare": "methods.relevance.rules:WSquare",
    "Flat": "methods.relevance.rules:Flat",
    "Box": "methods.relevance.rules:Box",
    "Proportional": "methods.relevance.rules:Proportional",
}

COMPOSITES = {"Composite": "methods.relevance.composites:Composite"}

PARTITIONS = {
    "Pixels": "partitions:Pixels",
    "Channels": "partitions:Channels",
    "Patches": "partitions:Patches",
    "Superpixels": "partitions:Superpixels",
    "Tokens": "partitions:Tokens",
    "Words": "partitions:Words",
    "Columns": "partitions:Columns",
}

REPLACEMENTS = {
    "Constant": "replacements:Constant",
    "Mean": "replacements:Mean",
    "RegionMean": "replacements:RegionMean",
    "Blur": "replacements:Blur",
    "NoisyLinear": "replacements:NoisyLinear",
    "Background": "replacements:Background",
    "Quartiles": "quartiles:Quartiles",
    "Delete": "replacements:Delete",
}

# The reference rows of a table of tests, which stand where a method does.
MAPS = {
    "RandomMap": "faithfulness.maps:RandomMap",
    "UniformMap": "faithfulness.maps:UniformMap",
    "Reversed": "faithfulness.maps:Reversed",
}
