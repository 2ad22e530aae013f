"""Makes amorphous structures by melting and quenching: molecular dynamics with CHGNet, an interatomic potential.

Needs the ``[quench]`` extra: CHGNet ships its weights, and ASE integrates the motion.
"""
# pyright: reportMissingImports=false
# The development environment lacks this extra, since CHGNet has no wheels for every Python.

import math
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from io import StringIO
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE
from chgnet.model import CHGNet, CHGNetCalculator
from pymatgen.core import Composition, Structure

from ...agent.types import Array, get_logger
from .disorder import QuenchSettings
from .structures import quiet

log = get_logger()

_LEAST_A = {True: 2.1, False: 1.6}
"""Smallest initial distance, Å, of atoms of the same element and of different ones: O atoms that begin closer would
form molecules."""
_TRIES = 200_000
_RELAXATION_STEPS = 30
_STEPS_PER_TEMPERATURE = 10


class _Forces(CHGNetCalculator):
    """CHGNet without stress and magnetic moments, which take half of its time."""

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[Any] | None = None,
        system_changes: list[Any] | None = None,
        task: Any = "ef",
    ) -> None:
        super().calculate(atoms, properties, system_changes, task)


def quenched(task: tuple[str, Structure, int], settings: QuenchSettings) -> Structure | str:
    """Melt and quench a composition (name, crystal, seed) on one core; return the reason of a failure as a text."""
    torch.set_num_threads(1)
    try:
        return quench(task[1], settings, task[2])
    except Exception as e:  # libraries raise many types of exceptions, which must not end a batch
        return str(e) or type(e).__name__


def quench(crystal: Structure, settings: QuenchSettings, seed: int) -> Structure:
    """Melt a composition and quench it.

    Parameters
    ----------
    crystal : supplies the composition and, if the settings state none, the density
    seed : seed of the initial positions and of the thermostat

    Raises
    ------
    ValueError
        The density leaves no room for the atoms.
    """
    rng = np.random.default_rng(seed)
    density = settings.density_g_cm3 or float(crystal.density)
    atoms = random_atoms(crystal.composition, settings.atoms, density, rng)
    with quiet():
        with _silent():
            atoms.calc = _Forces(_potential(), use_device="cpu")
        FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=1.0, steps=_RELAXATION_STEPS)
        MaxwellBoltzmannDistribution(atoms, temperature_K=settings.melt_k, rng=rng)
        motion = Langevin(
            atoms,
            settings.step_fs * units.fs,
            temperature_K=settings.melt_k,
            friction=settings.friction_per_ps / (1000 * units.fs),
            rng=rng,
        )
        motion.run(_steps(settings.melt_ps, settings))
        log.info("melted", seed=seed, **_state(atoms))
        for temperature in _cooling(settings):
            motion.set_temperature(temperature_K=temperature)
            motion.run(_STEPS_PER_TEMPERATURE)
        log.info("quenched", seed=seed, **_state(atoms))
    return Structure(atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions(wrap=True))


def random_atoms(composition: Composition, count: int, density_g_cm3: float, rng: np.random.Generator) -> Atoms:
    """Return at least ``count`` atoms of whole formula units at random positions in a cubic cell.

    Raises
    ------
    ValueError
        The density leaves no room for them.
    """
    formula = composition.reduced_composition
    units_ = math.ceil(count / formula.num_atoms)
    symbols = [e.symbol for e, n in formula.element_composition.items() for _ in range(round(n * units_))]
    mass_g = sum(float(atomic_masses[atomic_numbers[s]]) for s in symbols) / units.mol
    edge_a = (mass_g / density_g_cm3) ** (1 / 3) * 1e8
    # The most frequent element comes first, since it would find room last.
    symbols.sort(key=lambda s: (-symbols.count(s), s))
    places: list[Array] = []
    for _ in range(_TRIES):
        if len(places) == len(symbols):
            break
        place = rng.random(3) * edge_a
        apart = np.array(places).reshape(-1, 3) - place
        distance = np.linalg.norm(apart - edge_a * np.round(apart / edge_a), axis=1)
        least = np.array([_LEAST_A[s == symbols[len(places)]] for s in symbols[: len(places)]])
        if (distance >= least).all():
            places.append(place)
    else:
        raise ValueError(f"{density_g_cm3:g} g/cm³ leaves no room for {len(symbols)} atoms of {formula}")
    return Atoms(symbols, positions=np.array(places), cell=[edge_a] * 3, pbc=True)


def _cooling(settings: QuenchSettings) -> Array:
    """Return the temperatures of the cooling, K, each for some steps."""
    count = max(_steps(settings.cool_ps, settings) // _STEPS_PER_TEMPERATURE, 1)
    return np.geomspace(settings.melt_k, settings.final_k, count + 1)[1:]


def _steps(duration_ps: float, settings: QuenchSettings) -> int:
    return max(round(1000 * duration_ps / settings.step_fs), 1)


def _state(atoms: Atoms) -> dict[str, float]:
    return {
        "temperature_k": round(float(atoms.get_temperature())),
        "energy_ev_per_atom": round(float(atoms.get_potential_energy()) / len(atoms), 3),
    }


@contextmanager
def _silent() -> Iterator[None]:
    """Keep CHGNet's messages out of the output of a command."""
    with redirect_stdout(StringIO()):
        yield


@cache
def _potential() -> CHGNet:
    return CHGNet.load(use_device="cpu", verbose=False)
