"""Draw pictures from a trained GPT: `from pipeline.sample import Sampling, generate`."""

from pipeline.sampling.generate import Sampling, generate

__all__ = ["Sampling", "generate"]
