"""An interleaved range coder (rANS, Duda 2013) on whole arrays: symbols to about the entropy of their models, and back.

Symbol i belongs to lane i % lanes; every lane has a state of its own, so that one step of the loop codes a slice of `lanes`
neighbouring symbols in a dozen numpy operations. A state x lies in [LOW, LOW * 2^16); coding a symbol of frequency f (of
TOTAL) that begins at c makes it x // f * TOTAL + x % f + c, after its lowest 16 bits went out if the result would not fit. The
encoder walks from the last symbol to the first, so the decoder reads forwards. Content: each lane's last state (5 bytes), then
the 16-bit words in the order in which they are read. A lane costs about 4 bytes.
"""

from __future__ import annotations

import numpy as np

PRECISION = 16
TOTAL = 1 << PRECISION
"""Sum of the frequencies of a model."""
LOW = 1 << 24
_STATE_BYTES = 5
_WORD = np.dtype("<u2")


class DamagedError(ValueError):
    """Bytes that no encoder of ours wrote. One line."""


def lanes_of(count: int) -> int:
    """Lanes for so many symbols, about count^(2/3) / 100: few, as each costs bytes, and enough that the loop stays short."""
    lanes = 1
    while (2 * lanes) ** 3 << 20 <= count * count:
        lanes *= 2
    return lanes


def overhead(count: int) -> float:
    """Bytes beyond the entropy that lanes cost, on average."""
    return 4.0 * lanes_of(count) if count else 0.0


def encode(symbols: np.ndarray, models: np.ndarray, frequencies: np.ndarray) -> bytes:
    """Code uint8 symbols (N,), each under the model with the number in `models` (N,).

    frequencies: (K, A) int64, every row with sum TOTAL; that of a symbol which occurs must not be 0.
    """
    count = len(symbols)
    if not count:
        return b""
    lanes, alphabet = lanes_of(count), frequencies.shape[1]
    widths, starts = _flat(frequencies)
    state, words = np.full(lanes, LOW, np.int64), []
    for begin in range((count - 1) // lanes * lanes, -1, -lanes):
        index = models[begin : begin + lanes].astype(np.int64) * alphabet + symbols[begin : begin + lanes]
        x, f = state[: len(index)], widths[index]
        full = x >= f << 24
        if full.any():
            words.append(x[full].astype(_WORD))
            x = np.where(full, x >> 16, x)
        quotient = x // f
        state[: len(index)] = (quotient << PRECISION) + x - quotient * f + starts[index]
    states = state.astype("<u8").view(np.uint8).reshape(lanes, 8)[:, :_STATE_BYTES]
    return states.tobytes() + b"".join(part.tobytes() for part in reversed(words))


def decode(content: bytes | memoryview, models: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """The uint8 symbols (N,) that `encode` was given with the same models (N,) and frequencies.

    Reads nothing beyond `content`. Raises DamagedError unless every lane comes back to where the encoder began, with all read.
    """
    count = len(models)
    if not count:
        if len(content):
            raise DamagedError("bytes where there are no symbols")
        return np.empty(0, np.uint8)
    lanes, alphabet = lanes_of(count), frequencies.shape[1]
    head = lanes * _STATE_BYTES
    if len(content) < head or (len(content) - head) % 2:
        raise DamagedError(f"{len(content)} bytes are no coded symbols in {lanes} lanes")
    state, words = _states(content[:head], lanes), np.frombuffer(content[head:], _WORD).astype(np.int64)
    widths, starts = _flat(frequencies)
    symbol_at = np.concatenate([np.repeat(np.arange(alphabet), row) for row in frequencies]).astype(np.uint8)
    out, used = np.empty(count, np.uint8), 0
    for begin in range(0, count, lanes):
        model = models[begin : begin + lanes].astype(np.int64)
        x = state[: len(model)]
        slot = x & (TOTAL - 1)
        symbol = symbol_at[(model << PRECISION) + slot]
        out[begin : begin + lanes] = symbol
        index = model * alphabet + symbol
        x = widths[index] * (x >> PRECISION) + slot - starts[index]
        short = (x < LOW).nonzero()[0]
        if len(short):
            if used + len(short) > len(words):
                raise DamagedError("the coded symbols are cut off")
            x[short] = x[short] << 16 | words[used : used + len(short)]
            used += len(short)
        state[: len(model)] = x
    if used != len(words) or (state != LOW).any():
        raise DamagedError("the coded symbols do not end where they began")
    return out


def _flat(frequencies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and where each begins within its model, both flat: (K * A,)."""
    assert (frequencies.sum(axis=1) == TOTAL).all()
    return frequencies.ravel(), (np.cumsum(frequencies, axis=1) - frequencies).ravel()


def _states(content: bytes | memoryview, lanes: int) -> np.ndarray:
    wide = np.zeros((lanes, 8), np.uint8)
    wide[:, :_STATE_BYTES] = np.frombuffer(content, np.uint8).reshape(lanes, _STATE_BYTES)
    state = wide.view("<u8").ravel().astype(np.int64)
    if (state < LOW).any():
        raise DamagedError("a lane's state is below its range")
    return state
