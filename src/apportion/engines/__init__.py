"""The two ways to run a model: with some of its functions replaced, or with some of its features hidden."""
