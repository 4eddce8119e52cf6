"""Features of images: kept on disk or in memory, and made by the encoder where they are missing.

May import ``core``, ``data``, ``contract``, ``config``, ``text`` and ``encoder``. Start with ``source.py``.
"""
