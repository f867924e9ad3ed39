"""icsbench: a laboratory for one argument, why does Batch Normalization help?"""

__version__ = "0.2.0"
