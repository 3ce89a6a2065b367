"""Patterns within other people's models. Each module here needs a package of its own, by an extra."""
