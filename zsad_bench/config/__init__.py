"""From the command line to a checked configuration and its plugins.

May import ``core``; of Hydra only composition is used here. Start with ``schema.py`` (the keys) and ``compose.py``.
"""
