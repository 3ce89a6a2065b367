"""``attnc bench``: a pattern's function beside its peers, measured in one run.

From left to right: a ``Case`` (pattern, shapes, random inputs), the pattern's mask as a torch function, the
truth on some rows, the clock, the peers, the run, and what is made of its results. Nothing here is imported
before the command is given.
"""
