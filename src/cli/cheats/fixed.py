"""Sums a sequence."""


def total(seed, n):
    """The sum of seed, seed + 1, ... of n terms, modulo a prime."""
    return (n * seed + n * (n - 1) // 2) % 1_000_000_007
