"""The figures of the docs that a script makes are those that the script makes today."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.slow
def test_the_figures_of_the_physics_page(tmp_path):
    subprocess.run([sys.executable, DOCS / "gen" / "figures.py", tmp_path], check=True)
    for name in ("physics.png", "model.png"):
        made, kept = imread(tmp_path / name), imread(DOCS / "assets" / name)
        assert made.shape == kept.shape
        assert np.mean(np.abs(made - kept) > 0.1) < 0.02  # fonts may differ by a version
