"""What everything else stands on: inputs, targets, features, files, and classes by name."""
