"""What workers need: imported once, by the server that they are forked from, instead of by each in every stage."""

import pandas  # noqa: F401  which pyarrow imports when it is first needed

import data_builders.pipeline  # noqa: F401
from data_builders.families import families

families()
