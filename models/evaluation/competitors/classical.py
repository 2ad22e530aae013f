"""Trees and nearest neighbours: one estimator per descriptor on the aligned spectrum (scikit-learn, XGBoost)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ....agent.types import Array, InputError
from ...training import TrainingPlan, continued
from ..contract import Fitted, Predictions, Spectra, classes_of

try:
    import xgboost
    from sklearn import ensemble, neighbors, tree
except ImportError:
    raise InputError("training and evaluation need the [train] extra: pip install 'xas-agent[train]'") from None

_MIN_PROBABILITY = 1e-6


@dataclass(frozen=True)
class FittedClassifier:
    """A fitted estimator for those classes of the plan that occur in its training rows."""

    estimator: Any
    """Estimator of indices into ``seen``; None if there is only one class."""
    seen: NDArray[np.int_]
    """Indices of the occurring classes among those of the plan."""
    count: int
    """Number of classes of the plan."""

    def logits(self, spectra: Spectra) -> Array:
        """Return logits (N, classes) of aligned spectra (N, G)."""
        p = np.zeros((len(spectra), self.count))
        p[:, self.seen] = 1.0 if self.estimator is None else self.estimator.predict_proba(spectra)
        return np.log(np.maximum(p, _MIN_PROBABILITY))


@dataclass
class FittedEstimators:
    """Fitted estimators of all descriptors."""

    classifiers: Mapping[str, FittedClassifier]
    regressors: Mapping[str, Any]

    def __post_init__(self) -> None:
        fitted = [c.estimator for c in self.classifiers.values() if c.estimator is not None]
        self.parameters = sum(stored_values(e) for e in (*fitted, *self.regressors.values()))

    def predict(self, spectra: Spectra) -> Predictions:
        """Predict the descriptors of aligned spectra (N, G); short ones continue with their last value."""
        spectra = continued(torch.as_tensor(spectra)).numpy()
        logits = {d: c.logits(spectra) for d, c in self.classifiers.items()}
        return Predictions(logits, {d: r.predict(spectra).astype(float) for d, r in self.regressors.items()})


def stored_values(estimator: Any) -> int:
    """Count the split thresholds and leaf values of a fitted estimator, or the values of its stored spectra."""
    if isinstance(estimator, xgboost.XGBModel):
        model = json.loads(estimator.get_booster().save_raw("json"))["learner"]["gradient_booster"]["model"]
        return sum(int(t["tree_param"]["num_nodes"]) for t in model["trees"])  # one number per node or leaf
    if isinstance(estimator, neighbors.KNeighborsClassifier | neighbors.KNeighborsRegressor):
        return estimator.n_samples_fit_ * estimator.n_features_in_
    grown = [estimator.tree_] if hasattr(estimator, "tree_") else [e.tree_ for e in estimator.estimators_]
    return sum(t.node_count - t.n_leaves + t.n_leaves * t.value.shape[2] for t in grown)


@dataclass(frozen=True)
class Classical:
    """A competitor with estimators of scikit-learn's interface."""

    name: str
    classifier: type
    regressor: type
    defaults: Mapping[str, Any]
    search: Sequence[Mapping[str, Any]]
    """Arguments of the estimators, and ``copies``, the number of disturbed copies of the training spectra. These are
    disturbed as for the SPT, but not mixed, since a mixture has no class."""

    def fit(self, plan: TrainingPlan, train: NDArray[np.int_], settings: Mapping[str, Any], seed: int) -> Fitted:
        """Train each descriptor on those rows of ``train`` that have its label."""
        accepted = self.classifier().get_params()
        common = {k: v for k, v in {"random_state": seed, "n_jobs": 1}.items() if k in accepted}
        arguments = {**self.defaults, **settings, **common}
        copies = arguments.pop("copies", 0)
        spectra, rows = training_rows(plan, train, copies, seed)
        classifiers: dict[str, FittedClassifier] = {}
        for name, classes in classes_of(plan).items():
            label = plan.data.labels[name][rows]
            known = ~np.isnan(label)
            seen, code = np.unique(np.searchsorted(classes, label[known].astype(int)), return_inverse=True)
            estimator = self.classifier(**arguments).fit(spectra[known], code) if len(seen) > 1 else None
            classifiers[name] = FittedClassifier(estimator, seen, len(classes))
        regressors: dict[str, Any] = {}
        for name in plan.config.regressed:
            value = plan.data.labels[name][rows]
            known = ~np.isnan(value)
            regressors[name] = self.regressor(**arguments).fit(spectra[known], value[known])
        return FittedEstimators(classifiers, regressors)


def training_rows(
    plan: TrainingPlan, train: NDArray[np.int_], copies: int, seed: int
) -> tuple[Spectra, NDArray[np.int_]]:
    """Return the clean spectra of ``train`` followed by disturbed copies, and the row of each spectrum."""
    index = torch.as_tensor(train)
    generator = torch.Generator().manual_seed(seed)
    unmixed, settings = torch.eye(len(index)), plan.config.augmentation
    disturbed = [plan.rows.disturbed(unmixed, index, settings, generator) for _ in range(copies)]
    return continued(torch.cat([plan.clean[index], *disturbed])).numpy(), np.tile(train, 1 + copies)


NEAREST_NEIGHBOURS = Classical(
    "nearest-neighbours",
    neighbors.KNeighborsClassifier,
    neighbors.KNeighborsRegressor,
    {"weights": "distance", "algorithm": "brute"},
    ({"n_neighbors": 5}, {"n_neighbors": 2}, {"n_neighbors": 12}, {"n_neighbors": 5, "p": 1}),
)
DECISION_TREE = Classical(
    "decision-tree",
    tree.DecisionTreeClassifier,
    tree.DecisionTreeRegressor,
    {"min_samples_leaf": 5},
    (
        {"min_samples_leaf": 5},
        {"min_samples_leaf": 20},
        {"min_samples_leaf": 5, "max_features": 0.3},
        {"min_samples_leaf": 5, "copies": 2},
    ),
)
_FOREST_DEFAULTS = {"n_estimators": 300}
EXTRA_TREES = Classical(
    "extra-trees",
    ensemble.ExtraTreesClassifier,
    ensemble.ExtraTreesRegressor,
    _FOREST_DEFAULTS,
    (
        {"max_features": 0.3},
        {"max_features": "sqrt"},
        {"max_features": 0.3, "min_samples_leaf": 2},
        {"max_features": 0.3, "copies": 2},
    ),
)
RANDOM_FOREST = Classical(
    "random-forest",
    ensemble.RandomForestClassifier,
    ensemble.RandomForestRegressor,
    _FOREST_DEFAULTS,
    (
        {"max_features": "sqrt"},
        {"max_features": 0.3},
        {"max_features": "sqrt", "min_samples_leaf": 2},
        {"max_features": "sqrt", "copies": 2},
    ),
)
XGBOOST = Classical(
    "xgboost",
    xgboost.XGBClassifier,
    xgboost.XGBRegressor,
    {"tree_method": "hist", "max_bin": 64, "subsample": 0.8, "colsample_bytree": 0.5, "verbosity": 0},
    (
        {"n_estimators": 400, "learning_rate": 0.05, "max_depth": 6},
        {"n_estimators": 400, "learning_rate": 0.05, "max_depth": 4},
        {"n_estimators": 200, "learning_rate": 0.1, "max_depth": 5},
        {"n_estimators": 400, "learning_rate": 0.05, "max_depth": 5, "copies": 1},
    ),
)
