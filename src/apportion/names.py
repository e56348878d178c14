"""Every class that has a name: what it is called, and where it is. Data only: `core/registry.py` imports a class
when it is asked for.

A name belongs to one kind, and only what is listed here can be reached by a name or read from a repr. A new method
is one file and one line here, in the list of the question that it answers.
"""

# Short name → "module:class", below `apportion`.
PARTS = {
    "auto": "methods.auto:Auto",
    "saliency": "methods.gradients.gradient:Saliency",
    "inputxgradient": "methods.gradients.gradient:InputXGradient",
    "smoothgrad": "methods.gradients.noise:SmoothGrad",
    "ig": "methods.paths.integrated_gradients:IntegratedGradients",
    "lrp": "methods.propagation.lrp:LRP",
    "vargrad": "methods.gradients.noise:VarGrad",
    "guidedbackprop": "methods.gradients.rectified:GuidedBackprop",
    "deconvnet": "methods.gradients.rectified:Deconvnet",
    "deeplift": "methods.propagation.deeplift:DeepLIFT",
    "taylor": "methods.paths.taylor:Taylor",
    "gradcam": "methods.gradients.cam:GradCAM",
    "gradcamplusplus": "methods.gradients.cam:GradCAMPlusPlus",
    "layercam": "methods.gradients.cam:LayerCAM",
    "attention": "methods.gradients.attention:AttentionWeights",
}

HIDDEN = {
    "occlusion": "methods.hiding.occlusion:Occlusion",
    "lime": "methods.hiding.lime:LIME",
    "kernelshap": "methods.hiding.kernelshap:KernelSHAP",
    "rise": "methods.hiding.rise:RISE",
    "owen": "methods.hiding.owen:Owen",
}

METHODS = PARTS | HIDDEN

# Methods that return Interactions.
INTERACTIONS = {
    "ih": "methods.interactions.integrated_hessians:IntegratedHessians",
    "inputhessian": "methods.interactions.input_hessian:InputHessian",
    "shapleyinteractions": "methods.interactions.shapley:ShapleyInteractions",
}

# Methods of one kind of model each, beside that model, and those that are told which of its layers.
PARTS_OF_ONE_KIND = {
    "conceptrelevance": "methods.propagation.concepts:ConceptRelevance",
    "kerneldecomposition": "models.bag_of_words.kernel_decomposition:KernelDecomposition",
    "treeshap": "methods.trees.treeshap:TreeSHAP",
}

PAIRS_OF_ONE_KIND = {"treeinteractions": "methods.trees.pairs:TreeInteractions"}

PROTOTYPES = {
    "prototypes": "models.prototypes.methods:Prototypes",
    "upsampled": "models.prototypes.methods:Upsampled",
    "prototypelrp": "models.prototypes.methods:PrototypeLRP",
}

OF_ONE_KIND = PARTS_OF_ONE_KIND | PAIRS_OF_ONE_KIND | PROTOTYPES

# What a person asks, and the methods that answer it: how lists of methods are grouped.
QUESTIONS = {
    "Which parts mattered?": PARTS | PARTS_OF_ONE_KIND,
    "What if it were hidden?": HIDDEN,
    "What acts together?": INTERACTIONS | PAIRS_OF_ONE_KIND,
    "What does it look like?": PROTOTYPES,
}

TESTS = {
    "pixel-flipping": "evaluation.measures.flipping:PixelFlipping",
    "deletion": "evaluation.measures.flipping:Deletion",
    "insertion": "evaluation.measures.flipping:Insertion",
    "deletion-rate": "evaluation.measures.flipping:DeletionRate",
    "road": "evaluation.measures.flipping:ROAD",
    "comprehensiveness": "evaluation.measures.rationales:Comprehensiveness",
    "sufficiency": "evaluation.measures.rationales:Sufficiency",
    "soft-comprehensiveness": "evaluation.measures.soft:SoftComprehensiveness",
    "soft-sufficiency": "evaluation.measures.soft:SoftSufficiency",
    "infidelity": "evaluation.measures.fidelity:Infidelity",
    "completeness": "evaluation.measures.fidelity:Completeness",
    "top-k-drop": "evaluation.measures.top_k_drop:TopKDrop",
    "lds": "evaluation.measures.linear_datamodeling:LDS",
    "single-deletion": "evaluation.measures.single_deletion:SingleDeletion",
    "shuffle-tvd": "evaluation.measures.shuffle:ShuffleTVD",
    "roar": "evaluation.by_training.retraining:ROAR",
    "kar": "evaluation.by_training.retraining:KAR",
    "f-fidelity": "evaluation.by_training.retraining:FFidelity",
    "idsds": "evaluation.by_training.in_domain:IDSDS",
    "parameter-randomisation": "evaluation.measures.randomisation:ParameterRandomisation",
    "random-logit": "evaluation.measures.randomisation:RandomLogit",
    "max-sensitivity": "evaluation.measures.sensitivity:MaxSensitivity",
    "local-lipschitz": "evaluation.measures.sensitivity:LocalLipschitz",
    "sparseness": "evaluation.measures.complexity:Sparseness",
    "complexity": "evaluation.measures.complexity:Complexity",
    "effective-complexity": "evaluation.measures.complexity:EffectiveComplexity",
}

# What is a setting of methods and tests goes by the name of its class.
RULES = {
    "Zero": "methods.propagation.rules:Zero",
    "Epsilon": "methods.propagation.rules:Epsilon",
    "Gamma": "methods.propagation.rules:Gamma",
    "AlphaBeta": "methods.propagation.rules:AlphaBeta",
    "WSquare": "methods.propagation.rules:WSquare",
    "Flat": "methods.propagation.rules:Flat",
    "Box": "methods.propagation.rules:Box",
    "Proportional": "methods.propagation.rules:Proportional",
}

TARGETS = {"Neuron": "core.target:Neuron"}

COMPOSITES = {"Composite": "methods.propagation.composites:Composite"}

PARTITIONS = {
    "Pixels": "engines.masking.partitions:Pixels",
    "Channels": "engines.masking.partitions:Channels",
    "Patches": "engines.masking.partitions:Patches",
    "Superpixels": "engines.masking.partitions:Superpixels",
    "Tokens": "engines.masking.partitions:Tokens",
    "Words": "engines.masking.partitions:Words",
    "Columns": "engines.masking.partitions:Columns",
    "ColumnGroups": "engines.masking.partitions:ColumnGroups",
}

REPLACEMENTS = {
    "Constant": "engines.masking.replacements:Constant",
    "Mean": "engines.masking.replacements:Mean",
    "RegionMean": "engines.masking.replacements:RegionMean",
    "Blur": "engines.masking.replacements:Blur",
    "NoisyLinear": "engines.masking.replacements:NoisyLinear",
    "Background": "engines.masking.replacements:Background",
    "Quartiles": "engines.masking.binned:Quartiles",
    "Delete": "engines.masking.replacements:Delete",
}

# The reference rows of a table of tests, which stand where a method does.
MAPS = {
    "RandomMap": "evaluation.reference_maps:RandomMap",
    "UniformMap": "evaluation.reference_maps:UniformMap",
    "Reversed": "evaluation.reference_maps:Reversed",
}
