"""The EEG encoder: tokens of one channel and a moment each, through blocks of Mamba-2.

It knows where electrodes are, and neither their names nor the montage they came from; samples
reach it already scaled. It knows no file, no configuration and no task.

Legend of the shape suffixes
    B sequences   K token steps in time   C channels   S samples in a token
    T tokens (K * C, time-major: flat index k * C + c)   D model width
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from .mamba2 import BidirectionalMamba2, Mamba2

# Spatial frequencies of the electrode encoding, in cycles per metre. A head is about 0.2 m
# across: at 1.25 (wavelength 0.8 m) it spans a quarter of a wave, so sin(x) grows steadily from
# left to right; at 20 (wavelength 0.05 m) neighbours of the 10-20 system, 0.03-0.06 m apart,
# differ by about a whole wave and those of denser montages still differ clearly.
LOWEST_CYCLES_PER_METRE = 1.25
HIGHEST_CYCLES_PER_METRE = 20.0
# No electrode of a head sits farther than this from the middle of it, in metres; positions in
# millimetres or centimetres do.
FARTHEST_ELECTRODE_M = 0.5


RESULT_VERSION = 1  # raise when a change to the model or its scan alters what it computes


@dataclass(frozen=True)
class EncoderSettings:
    """Everything that fixes an encoder's shape, apart from its electrodes.

    d_model, num_layers: width and number of blocks.
    samples_per_token: samples S of a token, at the rate of the data.
    d_state, d_conv, expand, headdim, ngroups, chunk_size: of each Mamba-2 mixer.
    bidirectional: read in both directions, with weights of their own; otherwise causal.
    """

    d_model: int
    num_layers: int
    samples_per_token: int
    d_state: int = 64
    d_conv: int = 4
    expand: int = 2
    headdim: int = 64
    ngroups: int = 1
    chunk_size: int = 64
    bidirectional: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "bidirectional":
                if not isinstance(value, bool):
                    raise ValueError(f"bidirectional is {value!r}; expected true or false")
            elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{field.name} is {value!r}; expected a whole number from 1 up")

    def to_dict(self) -> dict[str, int | bool]:
        """Plain values only, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderSettings:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: if a key is unknown or a required one is missing.
        """
        known = {field.name for field in fields(cls)}
        required = {field.name for field in fields(cls) if field.default is MISSING}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown encoder settings {unknown}; known are {sorted(known)}")
        if missing := sorted(required - set(values)):
            raise ValueError(f"encoder settings {missing} are missing")
        return cls(**values)


def electrode_encoding(positions_C3: Tensor, d_model: int) -> Tensor:
    """Fixed multi-frequency Fourier features of electrode positions.

    For each of a geometric series of spatial frequencies: the sines, then the cosines, of x, y
    and z, scaled so that the mean square of a whole set of features is 1. Sines are odd, so
    mirrored electrodes, such as AF7 and AF8, differ.

    Args:
        positions_C3: head coordinates in metres, x to the right, y forwards, z up.
        d_model: number of features D, at least 6.

    Returns:
        encoding_CD, float32.

    Raises:
        ValueError: if the shape is wrong, D is below 6, or a position is not finite or cannot
            be in metres.
    """
    if positions_C3.dim() != 2 or positions_C3.shape[1] != 3 or positions_C3.shape[0] < 1:
        raise ValueError(f"positions must be [C, 3]; found {tuple(positions_C3.shape)}")
    if d_model < 6:
        raise ValueError(f"the electrode encoding needs d_model of at least 6; found {d_model}")
    positions_C3 = positions_C3.double()
    if not positions_C3.isfinite().all():
        raise ValueError("an electrode position is not a finite number")
    if (farthest := positions_C3.norm(dim=1).max().item()) > FARTHEST_ELECTRODE_M:
        raise ValueError(
            f"an electrode lies {farthest:g} from the origin; positions must be in metres "
            f"(at most {FARTHEST_ELECTRODE_M:g})"
        )
    num_frequencies = math.ceil(d_model / 6)
    cycles_F = torch.logspace(
        math.log2(LOWEST_CYCLES_PER_METRE),
        math.log2(HIGHEST_CYCLES_PER_METRE),
        num_frequencies,
        base=2,
        dtype=torch.float64,
    )
    phase_CF3 = 2 * math.pi * cycles_F.unsqueeze(-1) * positions_C3.unsqueeze(1)
    features_CF6 = torch.cat([phase_CF3.sin(), phase_CF3.cos()], dim=-1)
    return (math.sqrt(2.0) * features_CF6.flatten(1)[:, :d_model]).float().contiguous()


class Block(nn.Module):
    """A pre-norm residual block: x + mixer(LayerNorm(x))."""

    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(settings.d_model)
        mixer = BidirectionalMamba2 if settings.bidirectional else Mamba2
        self.mixer: BidirectionalMamba2 | Mamba2 = mixer(
            d_model=settings.d_model,
            d_state=settings.d_state,
            d_conv=settings.d_conv,
            expand=settings.expand,
            headdim=settings.headdim,
            ngroups=settings.ngroups,
            chunk_size=settings.chunk_size,
        )

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Mix x_BTD along its tokens; padding, where valid_BT is False, affects nothing."""
        out_BTD: Tensor = x_BTD + self.mixer(self.norm(x_BTD), valid_BT)
        return out_BTD


class Encoder(nn.Module):
    """Scaled EEG samples to one vector per token.

    A token's content is a linear map of its samples, or, where it is masked, one learned vector
    shared by all positions and channels. The encoding of its electrode is added to every token
    alike, so the model knows which electrode a masked token stands for, and nothing of what it
    recorded.

    Args:
        settings: the shape of the model.
        positions_C3: electrode positions in metres (see :func:`electrode_encoding`). They are
            part of the model's state and travel with its weights.
    """

    positions_C3: Tensor
    electrodes_CD: Tensor

    def __init__(self, settings: EncoderSettings, positions_C3: Tensor) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("positions_C3", positions_C3.detach().float().clone())
        self.register_buffer("electrodes_CD", electrode_encoding(positions_C3, settings.d_model))
        self.embed = nn.Linear(settings.samples_per_token, settings.d_model)
        # No bias: it would be the same for every token, which embed's already is.
        self.electrode_map = nn.Linear(settings.d_model, settings.d_model, bias=False)
        # Small beside a token's content (order 0.5), as in BERT and MAE.
        self.mask_token = nn.Parameter(torch.empty(settings.d_model).normal_(std=0.02))
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.num_layers))
        self.norm = nn.LayerNorm(settings.d_model)

    @property
    def num_channels(self) -> int:
        """Number of electrodes C."""
        return self.positions_C3.shape[0]

    def forward(
        self,
        samples_BKCS: Tensor,
        *,
        valid_BK: Tensor | None = None,
        masked_BKC: Tensor | None = None,
        source_BKC: Tensor | None = None,
    ) -> Tensor:
        """Encode a batch of sequences.

        Args:
            samples_BKCS: robustly scaled samples (no unit).
            valid_BK: bool, False where a step is padding. It affects no other step, and what
                comes back there has no meaning.
            masked_BKC: bool, True where the content is the mask token. The samples there cannot
                influence any output, whatever they are.
            source_BKC: int64, the flat index k * C + c of the token of the same sequence whose
                content is used. Pointing at a masked token yields silence, not its samples.

        Returns:
            tokens_BKCD.

        Raises:
            ValueError: if a shape does not fit the model or the other inputs.
        """
        self._check_shapes(samples_BKCS, valid_BK, masked_BKC, source_BKC)
        steps, channels = samples_BKCS.shape[1:3]
        # Hidden samples are overwritten before anything touches them, so that not even a NaN
        # among them reaches a value or a gradient.
        valid_BT = None
        if valid_BK is not None:
            valid_BT = valid_BK.repeat_interleave(channels, dim=1)
            samples_BKCS = samples_BKCS.masked_fill(~valid_BK[:, :, None, None], 0.0)
        if masked_BKC is not None:
            samples_BKCS = samples_BKCS.masked_fill(masked_BKC.unsqueeze(-1), 0.0)
        samples_BTS = samples_BKCS.flatten(1, 2)
        if source_BKC is not None:
            index_BT1 = source_BKC.flatten(1).unsqueeze(-1)
            samples_BTS = samples_BTS.gather(1, index_BT1.expand_as(samples_BTS))
        content_BTD = self.embed(samples_BTS)
        if masked_BKC is not None:
            masked_BT1 = masked_BKC.flatten(1).unsqueeze(-1)
            content_BTD = torch.where(masked_BT1, self.mask_token, content_BTD)
        x_BKCD = content_BTD.unflatten(1, (steps, channels)) + self.electrode_map(
            self.electrodes_CD
        )
        x_BTD = x_BKCD.flatten(1, 2)
        for block in self.blocks:
            x_BTD = block(x_BTD, valid_BT)
        tokens_BKCD: Tensor = self.norm(x_BTD).unflatten(1, (steps, channels))
        return tokens_BKCD

    def _check_shapes(
        self,
        samples_BKCS: Tensor,
        valid_BK: Tensor | None,
        masked_BKC: Tensor | None,
        source_BKC: Tensor | None,
    ) -> None:
        expected = (self.num_channels, self.settings.samples_per_token)
        if samples_BKCS.dim() != 4 or samples_BKCS.shape[2:] != expected:
            raise ValueError(
                f"samples have shape {tuple(samples_BKCS.shape)}; expected [B, K, C, S] with "
                f"C = {expected[0]} and S = {expected[1]}"
            )
        for name, tensor, shape in (
            ("valid", valid_BK, samples_BKCS.shape[:2]),
            ("masked", masked_BKC, samples_BKCS.shape[:3]),
            ("source", source_BKC, samples_BKCS.shape[:3]),
        ):
            if tensor is not None and tensor.shape != shape:
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; expected {tuple(shape)}")


def pooled_sum(tokens_BKCD: Tensor, valid_BK: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum each sequence's tokens over its valid steps and all channels.

    A participant's embedding is the sum over all their sequences divided by the sum of the
    counts, so that every token weighs the same.

    Args:
        tokens_BKCD: the encoder's output.
        valid_BK: bool, False where a step is padding; all valid when not given.

    Returns:
        sum_BD, and count_B: the number of tokens summed, in the dtype of the tokens.
    """
    batch, steps, channels, _ = tokens_BKCD.shape
    if valid_BK is None:
        valid_BK = torch.ones(batch, steps, dtype=torch.bool, device=tokens_BKCD.device)
    sum_BD = tokens_BKCD.masked_fill(~valid_BK[:, :, None, None], 0.0).sum((1, 2))
    count_B = valid_BK.sum(1).to(tokens_BKCD.dtype) * channels
    return sum_BD, count_B
