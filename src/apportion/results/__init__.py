"""What methods and tests return: explanations, interactions, scores and tables of them."""
