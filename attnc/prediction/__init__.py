"""The expected time of kernels on GPUs that are not there."""

from attnc.prediction.model import Expected, Gpu, Shape, Unpredictable, Work, count, gpus

__all__ = ["Expected", "Gpu", "Shape", "Unpredictable", "Work", "count", "gpus"]
