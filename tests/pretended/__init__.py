"""A CUDA device that is pretended: remit's way through a GPU, on a machine that has none."""
