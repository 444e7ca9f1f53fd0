"""A fine-tuned classifier as one function of a recording: raw windows in, logits out.

It joins scaling, tokens, encoder, pooling and head so that the whole can be exported with
``torch.export`` and run where remit is not installed. It knows no file and no parquet; windows
must already be filtered, resampled and free of offset.

Legend of the shape suffixes
    W windows   C channels   L samples in a window   S samples in a token   B sequences
    K token steps in a sequence   V windows of a sequence
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .encoder import Encoder, pooled_sum
from .heads import ClassifierHead
from .scaling import robust_scale


class ParticipantClassifier(nn.Module):
    """Windows of one recording to the logits of its participant.

    Args:
        encoder: the fine-tuned backbone.
        head: the fine-tuned head.
        context_windows: successive windows joined to one sequence, as in training.

    Raises:
        ValueError: if ``context_windows`` is below 1.
    """

    def __init__(self, encoder: Encoder, head: ClassifierHead, context_windows: int) -> None:
        super().__init__()
        if context_windows < 1:
            raise ValueError(f"context_windows is {context_windows}; it must be at least 1")
        self.encoder = encoder
        self.head = head
        self.context_windows = context_windows

    def forward(self, windows_WCL: Tensor) -> Tensor:
        """Classify one recording.

        Args:
            windows_WCL: float32 microvolts at the model's sampling rate, in time order, without
                a gap between them; any number of windows from 1 up.

        Returns:
            logits [1, num_classes].

        Raises:
            ValueError: if the channels do not fit the model or a window is not a whole number
                of tokens.
        """
        windows, channels, length = windows_WCL.shape
        samples = self.encoder.settings.samples_per_token
        if channels != self.encoder.num_channels:
            raise ValueError(f"found {channels} channels; expected {self.encoder.num_channels}")
        if length % samples:
            raise ValueError(
                f"a window of {length} samples is not a whole number of tokens of {samples}"
            )
        steps = length // samples
        context = self.context_windows
        scaled_WCL = robust_scale(windows_WCL)
        # The windows of each sequence, by index. Which windows begin one, and how many it has, is
        # asked of data, not of the shape: an exported program then holds for every W, where arithmetic
        # on W would bind it to the multiples, or to the size class, of the example it was made with.
        order_W = torch.arange(windows, device=windows_WCL.device)
        first_B1 = (order_W % context == 0).nonzero()
        order_V = (
            (order_W < context).nonzero().squeeze(1)
        )  # a short recording is one short sequence
        torch._check(first_B1.shape[0] >= 1)
        torch._check(order_V.shape[0] >= 1)
        index_BV = first_B1 + order_V
        valid_BK = (index_BV < windows).repeat_interleave(steps, dim=1)
        windows_BVCL = scaled_WCL[index_BV.clamp(max=windows - 1)]  # padding is marked invalid
        samples_BVKCS = torch.unflatten(windows_BVCL, 3, (steps, samples)).transpose(2, 3)
        samples_BKCS = samples_BVKCS.flatten(1, 2)
        tokens_BKCD = self.encoder(samples_BKCS, valid_BK=valid_BK)
        sum_BD, count_B = pooled_sum(tokens_BKCD, valid_BK)
        embedding_1D = (sum_BD.sum(0) / count_B.sum()).unsqueeze(0)
        logits: Tensor = self.head(embedding_1D)
        return logits


class ParticipantProbabilities(nn.Module):
    """A classifier that answers with probabilities: windows in, [1, num_classes] out, rows sum to 1."""

    def __init__(self, classifier: ParticipantClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, windows_WCL: Tensor) -> Tensor:
        """The softmax of the classifier's logits; arguments as there."""
        return torch.softmax(self.classifier(windows_WCL), dim=1)
