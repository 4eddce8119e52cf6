"""Result files: what a job leaves behind, read and written, without any statistics.

May import ``core`` and ``metrics``. Start with ``rows.py`` (the values) and ``files.py``; ``runs.py`` reads whole
folders.
"""
