"""Captions of the demo encoder: templates, state words, the compact vocabulary and its token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from open_clip.tokenizer import SimpleTokenizer

from zsad_bench.datasets.demo.procedural.categories import AUXILIARY, CLASS_NAMES, TEXTURES
from zsad_bench.datasets.demo.procedural.training import SOURCES

CONTEXT = 28
UNKNOWN = 0

TEMPLATES: tuple[str, ...] = (
    "{}", "{}.", "a photo of a {}.", "a photo of a {}", "a photo of the {}.", "a photo of one {}.",
    "a photo of my {}.", "a cropped photo of the {}.", "a cropped photo of a {}.", "a close-up photo of a {}.",
    "a close-up photo of the {}.", "a bright photo of a {}.", "a bright photo of the {}.",
    "a dark photo of the {}.", "a dark photo of a {}.", "a jpeg corrupted photo of a {}.",
    "a jpeg corrupted photo of the {}.", "a blurry photo of the {}.", "a blurry photo of a {}.",
    "a photo of a small {}.", "a photo of the small {}.", "a photo of a large {}.", "a photo of the large {}.",
    "a photo of the {} for visual inspection.", "a photo of a {} for visual inspection.",
    "a photo of the {} for anomaly detection.", "a photo of a {} for anomaly detection.", "a plain photo of a {}.",
    "a plain photo of the {}.", "a good photo of a {}.", "a good photo of the {}.", "a bad photo of a {}.",
    "a low resolution photo of a {}.", "a photo of a clean {}.", "a black and white photo of the {}.",
    "there is a {} in the scene.", "there is the {} in the scene.", "this is a {} in the scene.", "this is the {}.",
    "an industrial photo of a {}.", "an industrial photo of the {}.", "an industrial image of a {}",
    "an industrial image of the {}.", "a manufacturing image of a {}.", "a manufacturing photo of the {}",
    "a textural photo of a {}.", "a textural image of the {}.", "a surface picture of a {}.",
    "a surface photo of the {}.", "a surface image of the {}", "an image of a {}.", "a picture of the {}.",
    "a close-up image of the {}", "a product photo of a {}.", "a top view of the {}.", "it is a photo of a {}",
    "an example of a {}.",
)  # fmt: skip

NORMAL: tuple[str, ...] = (
    "{}", "normal {}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect",
    "{} without damage", "{} without scratch", "{} without crack", "{} without contamination", "good {}", "intact {}",
    "undamaged {}", "clean {}", "pristine {}", "{} without flaws", "{} without defects", "{} without any defect",
    "{} in good condition", "healthy {}", "ok {}", "defect-free {}", "{} without anomaly",
)  # fmt: skip

ABNORMAL: tuple[str, ...] = (
    "damaged {}", "broken {}", "abnormal {}", "imperfect {}", "blemished {}", "{} with flaw", "{} with defect",
    "{} with damage", "{} with scratch", "{} with crack", "{} with contamination", "defective {}", "anomalous {}",
    "faulty {}", "bad {}", "{} with flaws", "{} with defects", "{} with a defect", "{} with an anomaly", "flawed {}",
    "{} in bad condition", "unhealthy {}", "corrupted {}", "{} with anomaly", "{} with a flaw", "{} with damages",
)  # fmt: skip

DEFECT_PHRASES: dict[str, tuple[str, ...]] = {
    "scratch": ("scratched {}", "{} with a scratch", "{} with scratches"),
    "crack": ("cracked {}", "{} with a crack", "{} with cracks"),
    "hole": ("{} with a hole", "pierced {}", "{} with holes"),
    "stain": ("stained {}", "{} with a stain"),
    "contamination": ("contaminated {}", "dirty {}", "{} with dirt"),
    "dent": ("dented {}", "{} with a dent"),
    "colour_spot": ("discolored {}", "{} with a color spot", "{} with wrong color"),
    "missing_part": ("{} with a missing part", "incomplete {}", "{} with a missing piece"),
    "misplaced": ("misplaced {}", "{} with a misplaced part"),
    "bent": ("bent {}", "deformed {}", "{} with a bent part"),
    "foreign_patch": ("{} with a foreign object", "{} with a patch"),
    "burn": ("burnt {}", "{} with a burn"),
    "residue": ("{} with glue", "{} with residue", "{} with oil"),
}

_GENERIC = ("object", "part", "product", "item", "component")
_GENERIC_TEXTURE = ("surface", "texture", "material")
# Words that real prompt lists use and a template may need, although no caption above holds them.
_EXTRA = (
    "thing",
    "image",
    "picture",
    "patterned",
    "of",
    "with",
    "without",
    "and",
    "or",
    "no",
    "has",
    "is",
    "photograph",
)


class Vocabulary:
    """Compact ids: 0 is every unknown word, the rest keep the order of open_clip's ids, so the end token is last."""

    def __init__(self) -> None:
        self.tokenizer = SimpleTokenizer()
        states = [*NORMAL, *ABNORMAL, *(phrase for phrases in DEFECT_PHRASES.values() for phrase in phrases)]
        texts = [*TEMPLATES, *states, *_GENERIC, *_GENERIC_TEXTURE, *_EXTRA, *(CLASS_NAMES[name] for name in AUXILIARY)]
        plain = [text.replace("{}", " ") for text in texts]
        ids = {i for text in plain for i in self.tokenizer.encode(text)}
        ids |= {self.tokenizer.sot_token_id, self.tokenizer.eot_token_id}
        self.rows: list[int] = sorted(ids)
        self._compact = {row: k + 1 for k, row in enumerate(self.rows)}
        self.words = _words(plain)
        neutral = {word for text in [*TEMPLATES, *_EXTRA, *_GENERIC, *_GENERIC_TEXTURE] for word in _words([text])}
        # A function word of a state phrase ("in", "with") says nothing about the state by itself.
        self.state_words = [word for word in _words(states) if word not in neutral or word in {"good", "bad", "clean"}]

    def encode(self, text: str, noun: str | None = None, unknown: int = 0) -> list[int]:
        """Compact ids of a text with start and end; `{}` becomes the noun, or `unknown` tokens of an unknown word."""
        before, _, after = text.partition("{}")
        middle = [UNKNOWN] * unknown if noun is None else self._ids(noun)
        body = self._ids(before) + middle + self._ids(after)
        start, end = self._compact[self.tokenizer.sot_token_id], self._compact[self.tokenizer.eot_token_id]
        return [start, *body[: CONTEXT - 2], end]

    def _ids(self, text: str) -> list[int]:
        return [self._compact.get(i, UNKNOWN) for i in self.tokenizer.encode(text)]


def _words(texts: Iterable[str]) -> list[str]:
    """The distinct words of some texts, sorted."""
    return sorted({word.strip(".,") for text in texts for word in text.replace("{}", " ").lower().split()} - {""})


def padded(captions: Sequence[list[int]]) -> NDArray[np.int64]:
    """Token ids (n, longest), filled with the unknown token behind the end."""
    width = max(map(len, captions))
    return np.array([ids + [UNKNOWN] * (width - len(ids)) for ids in captions], dtype=np.int64)


class CaptionWriter:
    """Draws captions; every choice comes from the generator it is given."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.sources = list(SOURCES)

    def noun(self, rng: Generator, source: int) -> tuple[str | None, int, bool]:
        """(noun, number of unknown tokens, whether it names the category)."""
        name, draw = self.sources[source], rng.random()
        textured = name in TEXTURES or name == "random_texture"
        generic = _GENERIC_TEXTURE if textured and rng.random() < 0.6 else _GENERIC
        if draw < 0.25:
            return None, int(rng.integers(1, 4)), False
        if draw < 0.45 or name not in CLASS_NAMES:
            return str(rng.choice(generic)), 0, False
        return CLASS_NAMES[name], 0, True

    def caption(self, rng: Generator, source: int, state: str) -> tuple[list[int], bool]:
        """Token ids of a caption in a random template with the state phrase; whether it names the category."""
        noun, unknown, named = self.noun(rng, source)
        text = str(rng.choice(TEMPLATES)).format(state)
        return self.vocabulary.encode(text, noun, unknown), named

    def state_group(self, rng: Generator, source: int, pairs: int) -> list[list[int]]:
        """`pairs` normal then `pairs` abnormal captions with one noun: a small prompt ensemble."""
        noun, unknown, _ = self.noun(rng, source)
        captions = []
        for states in (NORMAL, ABNORMAL):
            for state in rng.choice(states, pairs, replace=False):
                text = str(rng.choice(TEMPLATES)).format(state)
                captions.append(self.vocabulary.encode(text, noun, unknown))
        return captions
