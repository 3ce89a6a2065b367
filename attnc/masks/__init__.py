"""Masks that were written elsewhere: FlexAttention's functions read as patterns, dense masks recognised."""
