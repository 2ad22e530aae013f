"""What the fields of a spectrum go by: the usual names of public beamline profiles, and names given as patterns."""

import re
from collections.abc import Iterable, Mapping

_TAILS = ("count", "counts", "net_count", "net_current", "current", "mean", "value", "volt", "voltage")
_VETO = re.compile(
    r"(^|_)(gain|offset|clock|dark|setpoint|sensitivity|std|sigma|err|error|time|timestamp|bias|status|edge)(_|$)"
)
_OTHER_ENERGY = re.compile(r"(^|_)(id|ivu|epu|und|undulator|gap|roi\d*|edge|offset|resolution)(_|$)")
_ENERGIES = ("energy", "dcm_energy", "hhm_energy", "mono_energy", "monochromator_energy", "en_energy", "pgm_energy")


def _detector(words: str, *special: str) -> tuple[re.Pattern[str], ...]:
    """Patterns from the surest to the least sure for a detector that goes by one of ``words``."""
    exact = rf"^({words})$"
    ends = rf"_({words})$"
    tails = [rf"(^|_)({words})_{tail}$" for tail in _TAILS]
    return tuple(re.compile(p) for p in (exact, *special, ends, *tails))


USUAL: Mapping[str, tuple[re.Pattern[str], ...]] = {
    "energy": tuple(
        re.compile(p)
        for p in (
            *(rf"^{name}$" for name in _ENERGIES),
            r"(^|_)energy(_(user_)?readback|_rbv|_value|_ev|_kev)?$",
            r"^(en|e)$",
            r"(^|_)energy_(user_)?setpoint$",
        )
    ),
    "i0": _detector("i0|io|i_0|izero", r"^apb_ave_ch1_mean$", r"^nexafs_i0up$"),
    "it": _detector("it|itrans|i_t|i1|transmission|transmitted", r"^apb_ave_ch2_mean$"),
    "iref": _detector("ir|iref|irefer|i_ref|i_r|i2", r"^apb_ave_ch3_mean$"),
    "fluorescence": _detector(
        r"(if|iff|i_f|ifluor|ifluo|fluo|fluor|fluorescence)_?\d*",
        r"^apb_ave_ch4_mean$",
        r"^xsx?_channel\d+_rois_roi01_value$",
    ),
    "mu": _detector("mu|xmu|mut|mutrans|mu_trans|mu_t|absorption|absorbance", "^(muf|mufluor|mu_fluor|mu_fluo)$"),
    "normalised": _detector(
        "norm|normalized|normalised|mu_norm|norm_mu|(norm(alized|alised)_mu)|(mu_norm(alized|alised))"
    ),
    "reference": _detector("reference|mu_ref|muref|mu_reference|reference_mu"),
}


class AmbiguousFieldError(Exception):
    """Several keys are as good as each other for a role."""

    def __init__(self, role: str, names: Iterable[str]) -> None:
        super().__init__(f"{role} may be any of {', '.join(names)}: name one in the configuration")


def plain(name: str) -> str:
    """Return a name without case and punctuation.

    >>> plain("monochromator-Energy")
    'monochromator_energy'
    """
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def usual(role: str, keys: Iterable[str]) -> list[str]:
    """Return the keys that match the surest pattern of ``role`` that any key matches."""
    veto = _OTHER_ENERGY if role == "energy" else _VETO
    names = {key: plain(key) for key in keys}
    names = {key: name for key, name in names.items() if not veto.search(name)}
    for pattern in USUAL[role]:
        if found := [key for key, name in names.items() if pattern.search(name)]:
            return found
    return []


def is_pattern(name: str) -> bool:
    """Whether a configured name is a regular expression, which stands between slashes."""
    return len(name) > 2 and name.startswith("/") and name.endswith("/")


def matching(name: str, keys: Iterable[str], element: str | None = None) -> list[str]:
    """Return the keys that a configured name means: itself, or else without case and punctuation.

    A name between slashes is a regular expression for the whole key, in any case, in which ``{element}`` is the
    absorber's symbol.

    >>> matching("/{element}[1-7]/", ["Ni1", "Ni2", "Fe1", "I0"], "Ni")
    ['Ni1', 'Ni2']
    """
    keys = list(keys)
    if is_pattern(name):
        pattern = re.compile(name[1:-1].replace("{element}", element or "[A-Z][a-z]?"), re.IGNORECASE)
        return [key for key in keys if pattern.fullmatch(key)]
    return [key for key in keys if key == name] or [key for key in keys if plain(key) == plain(name)]


def one(role: str, configured: str | None, keys: Iterable[str], element: str | None = None) -> str | None:
    """Return the key of ``role``; raise AmbiguousFieldError where several are as good as each other."""
    keys = list(keys)
    found = usual(role, keys) if configured is None else matching(configured, keys, element)
    if len(found) > 1:
        raise AmbiguousFieldError(role, found)
    return found[0] if found else None
