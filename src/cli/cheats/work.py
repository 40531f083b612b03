"""Sums a sequence."""


def total(seed, n):
    """The sum of seed, seed + 1, ... of n terms, modulo a prime."""
    result = 0
    for k in range(n):
        result = (result + seed + k) % 1_000_000_007
    return result
