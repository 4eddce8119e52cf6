"""How the embeddings of a state's prompts become one vector."""

AVERAGES = ("unit", "raw")
"""``unit``: mean of unit vectors; ``raw``: mean of the embeddings as CLIP gives them."""
