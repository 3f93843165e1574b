"""Read the entries of a training and data mining assertion (CAWG, 1.1; C2PA's own of before 2.0)."""

from collections.abc import Iterator
from typing import Any

ENTRIES = ("data_mining", "ai_training", "ai_generative_training", "ai_inference")
"""What an entry may be about, behind `cawg.` or `c2pa.`; scores and captions are inferences."""
REFUSING = {"notallowed", "constrained"}
"""Values of `use`, in lower case: what is constrained needs an agreement that nobody here can make."""


def refused_entries(assertion: Any) -> list[tuple[str, str]]:
    """Return (entry, its use) of each entry that an assertion refuses, in order of names."""
    entries = assertion.get("entries", assertion) if isinstance(assertion, dict) else {}
    return sorted(_refused(entries)) if isinstance(entries, dict) else []


def _refused(entries: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, entry in entries.items():
        use = entry.get("use") if isinstance(entry, dict) else entry
        if str(name).partition(".")[2] in ENTRIES and isinstance(use, str) and use.lower() in REFUSING:
            yield str(name), use
