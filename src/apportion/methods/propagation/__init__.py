"""How much of the score came through each neuron, and so from each entry of the input?

One modified backward pass answers: relevance by the rules of LRP, differences to a reference in DeepLIFT. What is lost
on the way is measured.
"""

__all__ = ["composites", "deeplift", "lrp", "rules"]
