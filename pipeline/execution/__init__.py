"""What runs a step: Beam backends, the supervisor of worker processes, a run folder and its lock."""
