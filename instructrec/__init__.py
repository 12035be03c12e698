"""instructrec: unlabeled data in, an instruction-following adapter with an honest zero-shot report out."""

__version__ = "0.1.0"
