"""Training of methods that have parameters, and the checkpoints that it leaves behind.

May import ``engine`` and everything below. Start with ``loop.py``; the command is ``python -m zsad_bench.train``.
"""
