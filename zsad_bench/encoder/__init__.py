"""The image and text towers of open_clip: weights, precision, one walk for all taps.

May import ``core``, ``data``, ``contract``, ``toolkit`` and ``text``. Start with ``base.py`` (what the engine uses) and
``loading.py`` (how to get one); ``tower.py`` is the walk.
"""
