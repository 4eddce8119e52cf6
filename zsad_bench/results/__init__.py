"""Result files: what a job leaves behind, read and written, without any statistics.

May import ``core``, ``metrics`` and ``statistics`` for the values that are kept. Start with ``rows.py`` (the values)
and ``files.py``; ``runs.py`` reads whole folders, ``series.py`` puts seeds together.
"""
