"""The bundled demo: photos that are drawn, not taken, and the dataset that keeps them as files.

``dataset.py`` is the dataset; ``procedural`` draws the photos and their masks.
"""

from .dataset import FIRST_TRAIN_INDEX, MANIFEST, Demo, Recipe

__all__ = ["FIRST_TRAIN_INDEX", "MANIFEST", "Demo", "Recipe"]
