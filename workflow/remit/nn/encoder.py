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
from contextlib import nullcontext
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from .checks import check_finite
from .heads import LogSpectrum
from .mamba2 import PRECISIONS, BidirectionalMamba2, Mamba2, MixerState

# Spatial frequencies of the electrode encoding, in cycles per metre. A head is about 0.2 m
# across: at 1.25 (wavelength 0.8 m) it spans a quarter of a wave, so sin(x) grows steadily from
# left to right; at 20 (wavelength 0.05 m) neighbours of the 10-20 system, 0.03-0.06 m apart,
# differ by about a whole wave and those of denser montages still differ clearly.
LOWEST_CYCLES_PER_METRE = 1.25
HIGHEST_CYCLES_PER_METRE = 20.0
# No electrode of a head sits farther than this from the middle of it, in metres; positions in
# millimetres or centimetres do.
FARTHEST_ELECTRODE_M = 0.5

SAMPLE_AXES = ("sequence", "step", "channel", "sample")

RESULT_VERSION = 4  # raise when a change to the model or its scan alters what it computes


@dataclass(frozen=True)
class EncoderSettings:
    """Everything that fixes an encoder's shape, apart from its electrodes.

    d_model, num_layers: width and number of blocks.
    samples_per_token: samples S of a token, at the rate of the data.
    d_state, d_conv, expand, headdim, ngroups, chunk_size: of each Mamba-2 mixer.
    bidirectional: read in both directions; otherwise causal.
    shared_directions: one set of weights for both directions, not one for each.
    token_hidden: units of the perceptron that reads a token's samples beside the linear map; 0 for none.
    spectrum_bins: lowest frequencies of a token, 1 / (its length) apart and without 0, whose log power is
        read beside the samples; 0 for none.
    precision: "float32", or "bfloat16" to round the factors of each mixer's projections (on CUDA
        with mamba-ssm's kernels, of everything in a mixer but its parameters and decays).
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
    shared_directions: bool = False
    token_hidden: int = 0
    spectrum_bins: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "precision":
                if value not in PRECISIONS:
                    raise ValueError(f"precision is {value!r}; expected one of {PRECISIONS}")
            elif isinstance(field.default, bool):
                if not isinstance(value, bool):
                    raise ValueError(f"{field.name} is {value!r}; expected true or false")
            else:
                least = 0 if field.name in ("token_hidden", "spectrum_bins") else 1
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise ValueError(
                        f"{field.name} is {value!r}; expected a whole number from {least} up"
                    )
        if self.spectrum_bins > self.samples_per_token // 2:
            raise ValueError(
                f"spectrum_bins is {self.spectrum_bins}; expected at most half of the "
                f"{self.samples_per_token} samples of a token"
            )
        if self.shared_directions and not self.bidirectional:
            raise ValueError(
                "shared_directions is true and bidirectional false; expected two directions to share "
                "weights; set bidirectional, or leave shared_directions out"
            )

    def to_dict(self) -> dict[str, int | bool | str]:
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
        sizes = {
            name: getattr(settings, name)
            for name in (
                "d_model",
                "d_state",
                "d_conv",
                "expand",
                "headdim",
                "ngroups",
                "chunk_size",
            )
        }
        self.mixer: BidirectionalMamba2 | Mamba2 = (
            BidirectionalMamba2(**sizes, shared=settings.shared_directions)
            if settings.bidirectional
            else Mamba2(**sizes)
        )
        for part in self.mixer.modules():
            if isinstance(part, Mamba2):
                part.precision = settings.precision

    def forward(self, x_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Mix x_BTD along its tokens; what stands beyond a row's length affects nothing."""
        out_BTD: Tensor = x_BTD + self.mixer(self.norm(x_BTD), lengths_B)
        return out_BTD

    def step(self, x_BD: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """One token of :meth:`forward` after those that ``state`` has seen; causal blocks only."""
        assert isinstance(self.mixer, Mamba2)
        out_BD, state = self.mixer.step(self.norm(x_BD), state)
        return x_BD + out_BD, state


class Encoder(nn.Module):
    """Scaled EEG samples to one vector per token.

    A token's content is a linear map of its samples, to which a perceptron adds what no linear map
    can tell, and a linear map of their standardised log spectrum, whose statistics are those of the
    tokens it was pretrained on (:func:`.heads.fit_spectra`); or, where it is masked, one learned vector
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
        hidden = settings.token_hidden
        self.perceptron = (
            nn.Sequential(
                nn.Linear(settings.samples_per_token, hidden),
                nn.GELU(),
                nn.Linear(hidden, settings.d_model, bias=False),
            )
            if hidden
            else None
        )
        bins = settings.spectrum_bins
        # At a rate of S a second, frequencies are numbers of bins.
        samples = settings.samples_per_token
        self.spectrum = LogSpectrum(samples, samples, 1, bins) if bins else None
        self.spectrum_map = nn.Linear(bins, settings.d_model, bias=False) if bins else None
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
        electrodes_CD: Tensor | None = None,
    ) -> Tensor:
        """Encode a batch of sequences.

        Args:
            samples_BKCS: robustly scaled samples (no unit).
            valid_BK: bool, False where a step is padding, which stands at the end of a row only.
                It affects no other step, and what comes back there has no meaning.
            masked_BKC: bool, True where the content is the mask token. The samples there cannot
                influence any output, whatever they are.
            source_BKC: int64, the flat index k * C + c of the token of the same sequence whose
                content is used. Pointing at a masked token yields silence, not its samples.
            electrodes_CD: :func:`electrode_encoding` of another montage, of any number of channels;
                that of the model's own electrodes when not given.

        Returns:
            tokens_BKCD.

        Raises:
            ValueError: if a shape does not fit the model or the other inputs. On a CPU, where looking
                costs next to nothing, also if padding stands before a valid step, or a sample that
                is read is NaN or infinite.
        """
        if electrodes_CD is None:
            electrodes_CD = self.electrodes_CD
        self._check_shapes(samples_BKCS, valid_BK, masked_BKC, source_BKC, electrodes_CD)
        if torch.compiler.is_exporting() and valid_BK is None and masked_BKC is None:
            # The number of steps is asked of data, not of the shape: the program then holds for every
            # K, where arithmetic on K would bind it to the size class of the example.
            order_K = samples_BKCS.new_ones(samples_BKCS.shape[1]).nonzero().squeeze(1)
            torch._check(order_K.shape[0] >= 1)
            samples_BKCS = samples_BKCS[:, order_K]
        steps, channels = samples_BKCS.shape[1:3]
        # On a GPU a look at the values would wait for it; in an exported program there is none.
        look = samples_BKCS.device.type == "cpu" and not torch.compiler.is_compiling()
        if look and valid_BK is not None:
            _check_padding_is_last(valid_BK)
            if valid_BK.all():
                valid_BK = None
        # Hidden samples are overwritten before anything touches them, so that not even a NaN
        # among them reaches a value or a gradient.
        lengths_B = None
        if valid_BK is not None:
            lengths_B = valid_BK.sum(1) * channels
            if not torch.compiler.is_compiling():
                lengths_B = lengths_B.cpu()  # looked at by every block: wait for a GPU once
            samples_BKCS = samples_BKCS.masked_fill(~valid_BK[:, :, None, None], 0.0)
        if masked_BKC is not None:
            samples_BKCS = samples_BKCS.masked_fill(masked_BKC.unsqueeze(-1), 0.0)
        check_finite("samples", samples_BKCS, SAMPLE_AXES)
        samples_BTS = samples_BKCS.flatten(1, 2)
        if source_BKC is not None:
            index_BT1 = source_BKC.flatten(1).unsqueeze(-1)
            samples_BTS = samples_BTS.gather(1, index_BT1.expand_as(samples_BTS))
        content_BTD = self._content(samples_BTS)
        if masked_BKC is not None:
            masked_BT1 = masked_BKC.flatten(1).unsqueeze(-1)
            content_BTD = torch.where(masked_BT1, self.mask_token, content_BTD)
        x_BKCD = content_BTD.unflatten(1, (steps, channels)) + self.electrode_map(electrodes_CD)
        x_BTD = x_BKCD.flatten(1, 2)
        kind = x_BTD.device.type
        # Blocks round by their own setting, in threads that know of no autocast; what they add up to
        # keeps the precision of the weights.
        inside = torch.is_autocast_enabled(kind)
        with torch.autocast(kind, enabled=False) if inside else nullcontext():
            x_BTD = x_BTD.to(self.norm.weight.dtype)
            for block in self.blocks:
                x_BTD = block(x_BTD, lengths_B)
            tokens_BKCD: Tensor = self.norm(x_BTD).unflatten(1, (steps, channels))
        return tokens_BKCD

    def initial_state(self, batch: int) -> list[MixerState]:
        """The state of :meth:`step` before the first token, one entry per block.

        Raises:
            ValueError: if the encoder is bidirectional or ``batch`` is below 1.
        """
        self._check_causal()
        if batch < 1:
            raise ValueError(f"batch is {batch}; expected at least 1 sequence")
        mixers = (cast(Mamba2, cast(Block, block).mixer) for block in self.blocks)
        return [mixer.initial_state(batch) for mixer in mixers]

    def step(self, samples_BCS: Tensor, state: list[MixerState]) -> tuple[Tensor, list[MixerState]]:
        """Encode the next token step of each sequence, as a recording streams in.

        Step after step this gives what :meth:`forward` gives for the whole sequence, to rounding,
        at a cost per step that does not grow.

        Args:
            samples_BCS: robustly scaled samples of one token step (no unit).
            state: from :meth:`initial_state`, or from the step before.

        Returns:
            tokens_BCD, and the state after them.

        Raises:
            ValueError: as :meth:`forward` and :meth:`initial_state`.
        """
        self._check_causal()
        samples_BKCS = samples_BCS.unsqueeze(1)
        self._check_shapes(samples_BKCS, None, None, None, self.electrodes_CD)
        check_finite("samples", samples_BKCS, SAMPLE_AXES)
        x_BCD = self._content(samples_BCS) + self.electrode_map(self.electrodes_CD)
        state = list(state)
        for number, block in enumerate(self.blocks):
            out_BD = []
            for x_BD in x_BCD.unbind(1):  # a block reads the electrodes one after another
                x_BD, state[number] = cast(Block, block).step(x_BD, state[number])
                out_BD.append(x_BD)
            x_BCD = torch.stack(out_BD, dim=1)
        tokens_BCD: Tensor = self.norm(x_BCD)
        return tokens_BCD, state

    def _content(self, samples_S: Tensor) -> Tensor:
        content_D: Tensor = self.embed(samples_S)
        if self.perceptron is not None:
            content_D = content_D + self.perceptron(samples_S)
        if self.spectrum is not None and self.spectrum_map is not None:
            content_D = content_D + self.spectrum_map(self.spectrum(samples_S))
        return content_D

    def _check_causal(self) -> None:
        if self.settings.bidirectional:
            raise ValueError(
                "this encoder is bidirectional; expected a causal one to read step by step; train with "
                "bidirectional false, or encode the whole sequence"
            )

    def _check_shapes(
        self,
        samples_BKCS: Tensor,
        valid_BK: Tensor | None,
        masked_BKC: Tensor | None,
        source_BKC: Tensor | None,
        electrodes_CD: Tensor,
    ) -> None:
        width = self.settings.d_model
        if electrodes_CD.dim() != 2 or electrodes_CD.shape[1] != width:
            raise ValueError(
                f"electrodes have shape {tuple(electrodes_CD.shape)}; expected [C, D] with D = {width}"
            )
        expected = (electrodes_CD.shape[0], self.settings.samples_per_token)
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


def _check_padding_is_last(valid_BK: Tensor) -> None:
    if valid_BK.shape[1] > 1 and (late_BK := valid_BK[:, 1:] & ~valid_BK[:, :-1]).any():
        row, step = late_BK.nonzero()[0].tolist()
        raise ValueError(
            f"valid: row {row} has padding at step {step} before a valid step; expected padding at "
            "the end of a row only; move it there"
        )


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
