"""The roles of a spectrum's fields, their usual names, and names and patterns that a user configures."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

_TAILS = ("count", "counts", "net_count", "net_current", "current", "mean", "value", "volt", "voltage")
_VETO = re.compile(
    r"^(log|ln)_|(^|_)(gain|offset|clock|dark|setpoint|sensitivity|std|sigma|err|error|time|timestamp|bias|status|edge)(_|$)"
)
_OTHER_ENERGY = re.compile(r"(^|_)(id|ivu|epu|und|undulator|gap|roi\d*|edge|offset|resolution)(_|$)")
_LINE = re.compile(r"([a-z]{1,2})_?([kl][ab])\d?(?:_?(?:mca|ch|det|roi|sdd)?_?\d+)?")
"""Channel of an emission line; the groups are the element and the line."""
_HUTCH = r"(eh|oh|ct)_?\d+"
"""Hutch or counter card of a detector, as in ``I0_eh1`` (SOLEIL) or ``I0/ct1`` (ESRF)."""
_MAX_REMEMBERED = 65_536
"""Number of names whose normal form or role is remembered: in a stream without an energy every key is tried as the
energy, and each run describes the same keys again."""
_CHAMBER = "(i|ic|ion_?ch(amber)?)"
_ENERGIES = ("energy", "dcm_energy", "hhm_energy", "mono_energy", "monochromator_energy", "en_energy", "pgm_energy")


@dataclass(frozen=True, slots=True)
class Synonyms:
    """The names of a role, in the form of :func:`plain_name`."""

    patterns: tuple[re.Pattern[str], ...]
    """Patterns of data keys and of columns in files, from the most to the least specific."""
    only_in_files: re.Pattern[str] | None = None
    """Pattern for whole column names that have this role in files only; in streams they are ambiguous."""
    spellings: tuple[str, ...] = ()
    """Other names of the role that a user may write."""


def _detector(
    words: str, *special: str, only_in_files: str | None = None, spellings: tuple[str, ...] = ()
) -> Synonyms:
    """Return the synonyms of a detector from a pattern of its names."""
    exact = rf"^({words})$"
    ends = rf"_({words})$"
    tails = [rf"(^|_)({words})_{tail}$" for tail in _TAILS]
    hutch = rf"(^|_)({words})_?{_HUTCH}(_({'|'.join(_TAILS)}))?$"
    patterns = tuple(re.compile(p) for p in (exact, *special, ends, *tails, hutch))
    return Synonyms(patterns, None if only_in_files is None else re.compile(only_in_files), spellings)


SYNONYMS: Mapping[str, Synonyms] = {
    "energy": Synonyms(
        tuple(
            re.compile(p)
            for p in (
                *(rf"^{name}$" for name in _ENERGIES),
                r"(^|_)energy(_(user_)?readback|_rbv|_value|_ev|_kev)?$",
                r"^(en|e)$",
                r"(^|_)energy_(user_)?setpoint$",
            )
        ),
        re.compile(r"achieved_energy|energy_?achieved|ev"),
    ),
    "i0": _detector(
        "i0|io|i_0|izero",
        rf"^({_CHAMBER}_?up(stream)?|up(stream)?_{_CHAMBER})$",
        r"^apb_ave_ch1_mean$",
        r"^nexafs_i0up$",
        only_in_files=r"(ion|ic)_?0|i0_\d\d",
    ),
    "it": _detector(
        "it|itrans|i_t|i1|transmission|transmitted",
        rf"^({_CHAMBER}_?down(stream)?|down(stream)?_{_CHAMBER})$",
        r"^apb_ave_ch2_mean$",
        only_in_files=r"(ion|ic)_?1|it_\d\d|i",
    ),
    "iref": _detector(
        "ir|iref|irefer|i_ref|i_r|i2",
        r"^apb_ave_ch3_mean$",
        only_in_files=r"(ion|ic)_?2|i(ref|r)_\d\d",
        spellings=("ir",),
    ),
    "fluorescence": _detector(
        r"(if|iff|i_f|ifluor|ifluo|fluo|fluor|fluorescence)_?\d*",
        r"^apb_ave_ch4_mean$",
        r"^xsx?_channel\d+_rois_roi01_value$",
        only_in_files=r"(ff|ge|sdd|vortex|lytle|pips|sca1)_?\d*",
        spellings=("if",),
    ),
    "mu": _detector(
        "x?mu|mu_?e|mut|mutrans|mu_trans|mu_t|absorption|absorbance",
        "^(muf|mufluor|mu_fluor|mu_fluo)$",
        only_in_files="(log|ln)_i[0o]_i[t1]?",
    ),
    "normalised": _detector(
        "norm|normalized|normalised|mu_norm|norm_mu|(norm(alized|alised)_mu)|(mu_norm(alized|alised))",
        only_in_files="normtrans|normfluor|flat",
        spellings=("norm", "normalized"),
    ),
    "reference": _detector(
        "reference|mu_ref|muref|mu_reference|reference_mu",
        only_in_files="murefer|normrefer|(log|ln)_i[t1]_i(ref|r|2)",
    ),
}
"""The roles of a spectrum's fields, with their names in streams and files.

Names that occur only in files come from XDI's dictionary, SSRL's data collector and Athena's exports.
"""


_XDI = {"itrans": "it", "irefer": "iref", "ifluor": "fluorescence"}


class AmbiguousFieldError(Exception):
    """Several data keys match a role equally well."""

    def __init__(self, role: str, names: Iterable[str]) -> None:
        super().__init__(f"{role} may be any of {', '.join(names)}: name one in the configuration")


class UnknownRoleError(ValueError):
    """A word is not a role of a field."""

    def __init__(self, word: str) -> None:
        roles = (
            f"{role} (or {', '.join(synonyms.spellings)})" if synonyms.spellings else role
            for role, synonyms in SYNONYMS.items()
        )
        super().__init__(f"no role {word!r}; expected one of {', '.join(roles)}")


def role_of(word: str) -> str:
    """Return the role that a user's word names, in any case; XDI's detector names are accepted too.

    Raises
    ------
    UnknownRoleError
        The word is not a role; the message lists all roles.

    Examples
    --------
    >>> role_of("if"), role_of("Iref"), role_of("itrans")
    ('fluorescence', 'iref', 'it')
    """
    lower = word.lower()
    for role, synonyms in SYNONYMS.items():
        if lower in (role, *synonyms.spellings) or _XDI.get(lower) == role:
            return role
    raise UnknownRoleError(word)


@lru_cache(_MAX_REMEMBERED)
def plain_name(name: str) -> str:
    """Return a name without case and punctuation; subscripts are ordinary digits and letters.

    >>> plain_name("monochromator-Energy")
    'monochromator_energy'
    >>> plain_name("I₀"), plain_name("µ(E)")
    ('i0', 'mu_e')
    """
    plain = unicodedata.normalize("NFKC", name).lower().replace("μ", "mu")
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")


def match_synonyms(role: str, keys: Iterable[str], *, in_files: bool = False) -> list[str]:
    """Return the keys that carry a usual name of a role.

    Only the most specific matching pattern counts.

    Parameters
    ----------
    role : key of ``SYNONYMS``
    keys : data keys or column names
    in_files : whether the keys are column names of a file, for which more names count
    """
    ranks = {key: _rank(role, plain_name(key)) for key in keys}
    best = min((rank for rank in ranks.values() if rank is not None), default=None)
    if best is not None:
        return [key for key, rank in ranks.items() if rank == best]
    only_in_files = SYNONYMS[role].only_in_files
    if in_files and only_in_files is not None:
        return [key for key in ranks if only_in_files.fullmatch(plain_name(key))]
    return []


@lru_cache(_MAX_REMEMBERED)
def _rank(role: str, name: str) -> int | None:
    """Return the index of the first pattern of a role that a plain name matches; None if none matches."""
    veto = _OTHER_ENERGY if role == "energy" else _VETO
    if veto.search(name):
        return None
    return next((k for k, pattern in enumerate(SYNONYMS[role].patterns) if pattern.search(name)), None)


def element_channels(element: str | None, keys: Iterable[str]) -> list[str]:
    """Return the keys of fluorescence channels named after the absorber, such as Ni1 or Ni_Ka_mca1.

    Kβ lines are left out if there are Kα lines. If the absorber is unknown, the channels name it, provided that all
    are of one element. Iodine has no such channels, because I0, I1 and I2 are ion chambers.
    """
    names = {key: plain_name(key) for key in keys}
    lines = {key: match for key, name in names.items() if (match := _LINE.fullmatch(name))}
    if not element and len(elements := {match[1] for match in lines.values()}) == 1:
        (element,) = elements
    if not element:
        return []
    mine = {key: match[2] for key, match in lines.items() if match[1] == element.lower()}
    if mine:
        strongest = min(mine.values())
        return [key for key, line in mine.items() if line == strongest]
    numbered = re.compile(rf"{element.lower()}_?\d+")
    return [] if element == "I" else [key for key, name in names.items() if numbered.fullmatch(name)]


def is_pattern(name: str) -> bool:
    """Return whether a configured name is a regular expression, written between slashes."""
    return len(name) > 2 and name.startswith("/") and name.endswith("/")


def match_keys(name: str, keys: Iterable[str], element: str | None = None) -> list[str]:
    """Return the keys that match a configured name exactly or, if none does, apart from case and punctuation.

    A name between slashes is a regular expression for the whole key, in any case; the absorber's symbol replaces
    ``{element}`` in it.

    >>> match_keys("/{element}[1-7]/", ["Ni1", "Ni2", "Fe1", "I0"], "Ni")
    ['Ni1', 'Ni2']
    """
    keys = list(keys)
    if is_pattern(name):
        pattern = re.compile(name[1:-1].replace("{element}", element or "[A-Z][a-z]?"), re.IGNORECASE)
        return [key for key in keys if pattern.fullmatch(key)]
    return [key for key in keys if key == name] or [key for key in keys if plain_name(key) == plain_name(name)]


def match_one(role: str, configured: str | None, keys: Iterable[str], element: str | None = None) -> str | None:
    """Return the key that matches the configured or a usual name, or None; raise AmbiguousFieldError for several."""
    keys = list(keys)
    matches = match_synonyms(role, keys) if configured is None else match_keys(configured, keys, element)
    if len(matches) > 1:
        raise AmbiguousFieldError(role, matches)
    return matches[0] if matches else None
