"""Inference with a fitted flow: unit cube, mode, entropy, divergence, marginals, conditionals, importance sampling."""
