"""The command line: ``python -m zsad_bench``, its sweeps, launchers and tables.

May import everything. Start with ``main.py``.
"""
