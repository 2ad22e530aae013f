"""The alias for arrays of numbers."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
"""An array of float64 of any shape; docstrings give the shape."""
