"""From what a person has (a sentence, a file, a row) to tensors, and back to names and pictures."""
