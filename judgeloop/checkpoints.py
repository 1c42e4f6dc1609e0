"""Models of the transformers library, loaded whole or refused.

The library fills weights that a checkpoint lacks with random numbers and goes on, and its messages run over many lines.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

OUT_OF_MEMORY = "memory ran out"
_OUT_OF_MEMORY = re.compile(r"(out of|not enough|allocate) memory", re.I)


class UnusableCheckpoint(Exception):
    """What is wrong with a checkpoint, as what follows its name: ``holds no trained lm_head.weight, …``."""


def load(kind: str, place: str, **options: Any) -> tuple[Any, Any]:
    """(tokenizer, model) of ``place``: a folder, a .gguf file, or a name in the library's cache or hub.

    kind: the library's class, as ``AutoModelForCausalLM``. options: of its ``from_pretrained``. Raises UnusableCheckpoint where a part
    cannot be loaded, and where weights are missing or have another shape than the configuration says.
    """
    import transformers

    source: dict[str, Any] = {"pretrained_model_name_or_path": place}
    if place.endswith(".gguf"):
        source = {"pretrained_model_name_or_path": str(Path(place).parent), "gguf_file": Path(place).name}
    _part("configuration", transformers.AutoConfig, **source)
    tokenizer = _part("tokenizer", transformers.AutoTokenizer, **source)
    # Weights of another shape are reported below, by name.
    settings = {**options, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, report = _part("weights", getattr(transformers, kind), **source, **settings)
    for name, held, wanted in sorted(report["mismatched_keys"]):
        shapes = (" x ".join(map(str, shape)) for shape in (held, wanted))
        raise UnusableCheckpoint("holds {} as {}, where its configuration wants {}".format(name, *shapes))
    if missing := sorted(report["missing_keys"]):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnusableCheckpoint(f"holds no trained {missing[0]}{more}, which would be random numbers")
    return tokenizer, model


def _part(part: str, of: Any, **source: Any) -> Any:
    try:
        return of.from_pretrained(**source)
    except Exception as error:  # the library and those below it raise all kinds
        raise UnusableCheckpoint(f"has no {part} that can be loaded ({reason(error)})") from None


def reason(error: Exception) -> str:
    """The first sentence of a library's error; OUT_OF_MEMORY where that is what it says."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(text):
        return OUT_OF_MEMORY
    return text.split(". ")[0].rstrip(".:")[:300] or type(error).__name__
