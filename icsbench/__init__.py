"""icsbench: a laboratory for one argument, why does Batch Normalization help?"""

__version__ = "0.1.0"
