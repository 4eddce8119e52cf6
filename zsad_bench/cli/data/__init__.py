"""``zsad-bench data``: list, check, show, export and download datasets.

May import everything. Start with ``commands.py``.
"""
