"""The model, tensors in and tensors out: Mamba-2, the EEG encoder, masking, heads, export.

This floor stands alone. It may import torch, numpy and the standard library; it knows no file,
no configuration and no other part of remit.
"""
