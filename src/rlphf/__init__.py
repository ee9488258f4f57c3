"""rlphf: reproducible experiments in reinforcement learning from personalised human feedback."""

__version__ = "0.1.0"
