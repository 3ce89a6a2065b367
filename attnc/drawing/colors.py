"""Colors of terms: told apart by most eyes, on white and on black."""

from __future__ import annotations

TERMS = ("#3f7fc4", "#d9822b", "#2f9e69", "#c2529a", "#8a6fd1", "#a8912a", "#2fa3b0", "#cf5650")
# For terminals: the nearest of their 256 colors.
TERMINAL = (68, 172, 35, 169, 98, 136, 37, 167)
# How strongly a tile of which only some pairs are edges is painted.
PARTIAL = 0.48


def color(term: int) -> str:
    return TERMS[term % len(TERMS)]


def terminal_color(term: int) -> int:
    return TERMINAL[term % len(TERMINAL)]
