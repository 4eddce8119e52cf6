"""Prompts: the ensembles of ``conf/prompts`` and the embeddings that were made of them.

May import ``core``, ``config`` and ``contract``. Start with ``ensembles.py``.
"""
