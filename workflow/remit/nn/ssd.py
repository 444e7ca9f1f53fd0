"""The state-space scan of Mamba-2 by chunks (structured state-space duality), in plain PyTorch.

It knows tensors only: no module, no parameter, no file. Apart from the decays within a chunk it is
ordinary autograd code; it can be differentiated twice and exported. Nothing loops over time steps.

Source: Dao & Gu 2024, "Transformers are SSMs", arXiv 2405.21060, section 6, and the reference
functions of github.com/state-spaces/mamba.

Legend of the shape suffixes
    B sequences   T tokens in time   H heads   P head width   N state size   G groups
    Z chunks      Q tokens in a chunk (i the reading token, j the written one)
    R heads of one group (R = H / G)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

LOG2_E = math.log2(math.e)
# Decays below these powers of two become exactly zero: next to anything else in the sum they are
# far beneath the rounding. Kept, their products would be subnormal numbers, which many CPUs
# multiply in microcode (on an AMD Zen 5 it made no measurable difference either way).
FORGOTTEN_LOG2 = {torch.float32: -60.0, torch.float64: -120.0}
# No single step needs to decay by more: two such bounds apart there is nothing left to change.
# It keeps the sums over a chunk small, so exact, and finite however large dt and A are.
LOWEST_LOG2 = {dtype: 2 * log2 for dtype, log2 in FORGOTTEN_LOG2.items()}


def ssd_scan(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    *,
    chunk_size: int = 64,
    initial_state_BHPN: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the selective state-space recurrence of Mamba-2 over a batch of sequences.

    For every sequence, head and step t::

        h_t = exp(dt_t * A) * h_{t-1} + dt_t * x_t B_t^T        (P x N)
        y_t = h_t C_t

    What has decayed below 2^-60 (in float64, 2^-120) of its size counts as forgotten.

    Args:
        x_BTHP: input of each head, float32 or float64.
        dt_BTH: step sizes, not negative (after softplus). A step with dt = 0 changes nothing.
        A_H: the decay rate of each head per unit of dt. Must be negative.
        B_BTGN: input projections; heads ``g * H/G .. (g+1) * H/G - 1`` share group g.
        C_BTGN: output projections, grouped alike.
        chunk_size: tokens treated as one dense block; changes the cost, not the result. Up to
            two chunks' worth of tokens are done as a single block.
        initial_state_BHPN: the state before the first step; zero when not given.

    Returns:
        y_BTHP, and the state after the last step as final_state_BHPN.

    Raises:
        ValueError: if the shapes do not fit together, or ``chunk_size`` or T is below 1.
    """
    y_BTHP, state_BHPN = _scan(
        x_BTHP, dt_BTH, A_H, B_BTGN, C_BTGN, chunk_size, initial_state_BHPN, want_state=True
    )
    assert state_BHPN is not None
    return y_BTHP, state_BHPN


def ssd_output(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    *,
    chunk_size: int = 64,
) -> Tensor:
    """Return y_BTHP of :func:`ssd_scan` alone, without paying for the final state."""
    y_BTHP, _ = _scan(x_BTHP, dt_BTH, A_H, B_BTGN, C_BTGN, chunk_size, None, want_state=False)
    return y_BTHP


def _scan(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    chunk_size: int,
    initial_state_BHPN: Tensor | None,
    *,
    want_state: bool,
) -> tuple[Tensor, Tensor | None]:
    _check_shapes(x_BTHP, dt_BTH, A_H, B_BTGN, C_BTGN, chunk_size, initial_state_BHPN)
    batch, steps, heads, width = x_BTHP.shape
    groups, size = B_BTGN.shape[2:]
    per_group = heads // groups

    # One block of up to two chunks is faster than two blocks and the states between them.
    Q = steps if steps <= 2 * chunk_size else chunk_size
    Z = -(-steps // Q)
    padding = Z * Q - steps
    u_BTHP = x_BTHP * dt_BTH.unsqueeze(-1)
    if padding:  # dt = 0: decay 1 and nothing written, so the final state is right as well
        u_BTHP = F.pad(u_BTHP, (0, 0, 0, 0, 0, padding))
        dt_BTH = F.pad(dt_BTH, (0, 0, 0, padding))
        B_BTGN = F.pad(B_BTGN, (0, 0, 0, 0, 0, padding))
        C_BTGN = F.pad(C_BTGN, (0, 0, 0, 0, 0, padding))
    u_BZQHP = u_BTHP.reshape(batch, Z, Q, heads, width)
    B_BZGQN = B_BTGN.reshape(batch, Z, Q, groups, size).transpose(2, 3)
    C_BZGQN = C_BTGN.reshape(batch, Z, Q, groups, size).transpose(2, 3)

    # log2 of the decay from a chunk's start up to and including each token. A chunk can forget
    # its past many times over, so the sums grow large while the differences that matter stay
    # small: they are kept in float64 (Apple's MPS has none).
    wide = torch.float32 if x_BTHP.device.type == "mps" else torch.float64
    narrow = torch.promote_types(x_BTHP.dtype, torch.float32)
    step_BZQH = (dt_BTH.to(wide) * (A_H.to(wide) * LOG2_E)).clamp(min=LOWEST_LOG2[narrow])
    step_BZQH = step_BZQH.reshape(batch, Z, Q, heads)
    sum_BZHQ = step_BZQH.transpose(2, 3).cumsum(-1)

    # Within a chunk: y_i = sum_{j<=i} (C_i . B_j) 2^(sum_i - sum_j) u_j.
    decay_BZHQQ: Tensor = _SegmentDecay.apply(sum_BZHQ, narrow)  # type: ignore[no-untyped-call]
    weight_BZGQQ = C_BZGQN @ B_BZGQN.transpose(-1, -2)  # once per group, not per head
    weight_BZGRQQ = weight_BZGQQ.unsqueeze(3) * torch.unflatten(decay_BZHQQ, 2, (groups, per_group))
    u_BZHQP = u_BZQHP.transpose(2, 3)
    y_BZHQP = weight_BZGRQQ.flatten(2, 3) @ u_BZHQP
    y_BZQHP = y_BZHQP.transpose(2, 3)
    if Z == 1 and not want_state and initial_state_BHPN is None:
        return y_BZQHP.reshape(batch, steps, heads, width), None

    # What each chunk leaves in the state: sum_j 2^(sum_end - sum_j) B_j (x) u_j. The heads of a
    # group lie side by side, so that this is one matrix product per group.
    end_BZH1 = sum_BZHQ[..., -1:]
    # The last token's exponent is 0 whatever dt is; padding keeps it out of the gradient.
    to_end_BZHQ = _decay(F.pad(end_BZH1 - sum_BZHQ[..., :-1], (0, 1)), narrow)
    to_end_BZQH1 = to_end_BZHQ.transpose(2, 3).unsqueeze(-1)
    kept_BZQHP = u_BZQHP * to_end_BZQH1
    kept_BZGQ_RP = torch.unflatten(kept_BZQHP, 3, (groups, per_group)).transpose(2, 3).flatten(4, 5)
    written_BZGN_RP = B_BZGQN.transpose(-1, -2) @ kept_BZGQ_RP

    # From chunk to chunk. unbind, not indexing: its backward writes each slice once.
    written_BZNHP = torch.unflatten(written_BZGN_RP, -1, (per_group, width)).permute(
        0, 1, 3, 2, 4, 5
    )
    written_BZNHP = written_BZNHP.flatten(3, 4)
    chunk_decay_BZ1H1 = _decay(end_BZH1, narrow).unsqueeze(2)
    if initial_state_BHPN is None:
        state_BNHP = torch.zeros_like(written_BZNHP[:, 0])
    else:
        state_BNHP = initial_state_BHPN.to(narrow).permute(0, 3, 1, 2)
    before: list[Tensor] = []
    for decay_B1H1, written_BNHP in zip(
        chunk_decay_BZ1H1.unbind(1), written_BZNHP.unbind(1), strict=True
    ):
        before.append(state_BNHP)
        state_BNHP = torch.addcmul(written_BNHP, state_BNHP, decay_B1H1)

    # What each token reads of the state its chunk began with.
    if Z > 1 or initial_state_BHPN is not None:
        before_BZNHP = torch.stack(before, 1)
        before_BZGN_RP = (
            torch.unflatten(before_BZNHP, 3, (groups, per_group))
            .permute(0, 1, 3, 2, 4, 5)
            .flatten(4, 5)
        )
        read_BZGQRP = torch.unflatten(C_BZGQN @ before_BZGN_RP, -1, (per_group, width))
        read_BZQHP = read_BZGQRP.transpose(2, 3).flatten(3, 4)
        from_start_BZQH1 = _decay(sum_BZHQ, narrow).transpose(2, 3).unsqueeze(-1)
        y_BZQHP = torch.addcmul(y_BZQHP, read_BZQHP, from_start_BZQH1)

    y_BTHP = y_BZQHP.reshape(batch, Z * Q, heads, width)
    return y_BTHP[:, :steps], state_BNHP.permute(0, 2, 3, 1)


def _decay(log2: Tensor, dtype: torch.dtype) -> Tensor:
    """2 to the power of ``log2`` in the given dtype, zero where that is as good as forgotten."""
    return F.threshold(log2.to(dtype), FORGOTTEN_LOG2[dtype], -math.inf).exp2()


class _SegmentDecay(torch.autograd.Function):
    """Decays between all pairs of a chunk: 2^(sum_i - sum_j) for j <= i, zero for j > i.

    Plain autograd would give the same derivative at the cost of three more passes over the
    largest tensor of the scan, and less exactly: the gradient of one step is a difference of row
    and column sums, in which everything that does not span the step cancels. Summed in float32,
    what is left of that cancellation outweighs the small gradient of a strong decay.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, sum_BZHQ: Tensor, dtype: torch.dtype) -> Tensor:
        rounded_BZHQ = sum_BZHQ.to(dtype)
        log2_BZHQQ = rounded_BZHQ.unsqueeze(-1) - rounded_BZHQ.unsqueeze(-2)
        if dtype != sum_BZHQ.dtype:  # put back what rounding took from the large sums
            lost_BZHQ = (sum_BZHQ - rounded_BZHQ).to(dtype)
            log2_BZHQQ.add_(lost_BZHQ.unsqueeze(-1)).sub_(lost_BZHQ.unsqueeze(-2))
        # The exponent above the diagonal is positive: it must go before it can overflow.
        later_QQ = torch.full_like(log2_BZHQQ[0, 0, 0], -math.inf).triu_(1)
        torch.threshold_(log2_BZHQQ.add_(later_QQ), FORGOTTEN_LOG2[dtype], -math.inf)
        decay_BZHQQ = log2_BZHQQ.exp2_()
        ctx.save_for_backward(decay_BZHQQ)
        return decay_BZHQQ

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (decay_BZHQQ,) = ctx.saved_tensors
        wide = torch.float32 if decay_BZHQQ.device.type == "mps" else torch.float64
        grad_BZHQQ = gradients[0] * decay_BZHQQ
        # A token's own weight does not depend on any decay.
        grad_BZHQQ.diagonal(dim1=-2, dim2=-1).zero_()
        grad_BZHQQ = grad_BZHQQ.to(wide)
        return (grad_BZHQQ.sum(-1) - grad_BZHQQ.sum(-2)) * math.log(2.0), None


def _check_shapes(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    chunk_size: int,
    initial_state_BHPN: Tensor | None,
) -> None:
    if chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; it must be at least 1")
    if x_BTHP.dim() != 4 or B_BTGN.dim() != 4:
        raise ValueError(
            f"x must be [B, T, H, P] and B [B, T, G, N]; found {tuple(x_BTHP.shape)} and "
            f"{tuple(B_BTGN.shape)}"
        )
    batch, steps, heads, width = x_BTHP.shape
    groups, size = B_BTGN.shape[2:]
    if steps < 1:
        raise ValueError("the scan needs at least one time step; T is 0")
    if heads % groups:
        raise ValueError(f"{heads} heads cannot be shared out over {groups} groups evenly")
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("dt", dt_BTH, (batch, steps, heads)),
        ("A", A_H, (heads,)),
        ("B", B_BTGN, (batch, steps, groups, size)),
        ("C", C_BTGN, (batch, steps, groups, size)),
        ("initial_state", initial_state_BHPN, (batch, heads, width, size)),
    ]
    for name, tensor, shape in expected:
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
