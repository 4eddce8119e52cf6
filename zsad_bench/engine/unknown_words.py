"""State phrases that say nothing to an encoder, because it was never trained on their words."""

from __future__ import annotations

import re

from zsad_bench.core import console
from zsad_bench.encoder.base import Encoder
from zsad_bench.text.ensembles import PromptEnsemble


def warn_unknown_states(encoder: Encoder, ensemble: PromptEnsemble) -> None:
    """Warn of state phrases of which the encoder knows no word: their embeddings say nothing about the state."""
    deaf = set()
    for phrase in (*ensemble.normal, *ensemble.abnormal):
        words = re.findall(r"[a-z0-9]+", phrase.replace("{}", " ").lower())
        if words and len(encoder.unknown_words(" ".join(words))) == len(words):
            deaf.add(" ".join(words))
    if deaf:
        console.warn(
            f"the encoder {encoder.spec.name} was never trained on the state words {', '.join(sorted(deaf))} "
            f"of the prompts {ensemble.name}; these prompts carry no information for it"
        )
