"""Where this checkout is, and what may lie beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
"""Reference outputs and real rows; tests skip with a reason where it is absent."""
