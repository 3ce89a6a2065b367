"""The commands, one file each: what it takes, and what it does with that.

Each has ``add``, which tells the parser of the command line. Nothing slow is imported before a command runs.
"""
