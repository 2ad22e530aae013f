"""Makes a model folder from FEFF rows and a config."""

from .augment import Augmentation, add_noise, disturb, mixtures, shifted
from .build import build
from .calibration import Blend, fit_blend
from .config import Network, TrainingConfig
from .data import DataError, FeffData, check_grid, load_feff, load_sets
from .metrics import scores
from .plan import TrainedMember, TrainingPlan, config_of, ensemble, held_out, served_weights
from .rows import FINE_EV, Rows, Scale, Targets, continued, prepare, reach_of
from .standards import Standard, StandardError, StandardFit, calibrate, mean_of_sites
from .together import Checkpoint, Training, train_together
from .train import folds, share_of, train_member
from .windows import cut_rows, window_points

__all__ = [
    "FINE_EV",
    "Augmentation",
    "Blend",
    "Checkpoint",
    "DataError",
    "FeffData",
    "Network",
    "Rows",
    "Scale",
    "Standard",
    "StandardError",
    "StandardFit",
    "Targets",
    "TrainedMember",
    "Training",
    "TrainingConfig",
    "TrainingPlan",
    "add_noise",
    "build",
    "calibrate",
    "check_grid",
    "config_of",
    "continued",
    "cut_rows",
    "disturb",
    "ensemble",
    "fit_blend",
    "folds",
    "held_out",
    "load_feff",
    "load_sets",
    "mean_of_sites",
    "mixtures",
    "prepare",
    "reach_of",
    "scores",
    "served_weights",
    "share_of",
    "shifted",
    "train_member",
    "train_together",
    "window_points",
]
