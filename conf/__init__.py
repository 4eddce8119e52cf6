"""Configurations of Hydra: a folder a group, ``config.yaml`` on top of them."""
