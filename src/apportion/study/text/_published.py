"""What the literature reports for the study of feature maps on text, beside which ours stand.

Order of the numbers in each row: IMDB, SST, AG News, 20 Newsgroups.
"""

ORDER = ("imdb", "sst", "agnews", "20news")

ACCURACY = (0.884, 0.766, 0.939, 0.770)
F1 = (0.886, 0.759, 0.939, 0.767)
DELETION = {
    "Saliency": (0.570, 0.508, 0.677, 0.610),
    "Integrated Gradients": (0.095, 0.271, 0.353, 0.274),
    "Input×Gradient": (0.101, 0.292, 0.397, 0.251),
    "Attention": (0.479, 0.545, 0.644, 0.532),
}
WEAK_LEARNER = {
    "Saliency": (0.843, 0.669, 0.926, 0.723),
    "Integrated Gradients": (0.887, 0.725, 0.940, 0.727),
    "Input×Gradient": (0.887, 0.667, 0.938, 0.741),
    "Attention": (0.852, 0.592, 0.922, 0.660),
    "Uniform": (0.862, 0.728, 0.932, 0.524),
    "Random": (0.451, 0.572, 0.490, 0.453),
}
SHUFFLE = {
    "Saliency": (0.273, 0.093, 0.093, 0.164),
    "Integrated Gradients": (0.369, 0.314, 0.365, 0.336),
    "Input×Gradient": (0.429, 0.240, 0.376, 0.388),
    "Attention": (0.258, 0.167, 0.161, 0.307),
}
