"""Stable Diffusion: tensors in, tensors out. Knows no node, no job and no HTTP."""
