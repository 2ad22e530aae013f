"""The settings and the published names of anchors and relative quantities."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from ..types import ConfigError, Frame, Settings, validate_settings

_VALUE, _BELOW, _ABOVE = "_mean", "_below", "_above"
_EXPECTED = "<descriptor>_mean, frame, <reading>_below, <reading>_above, element, sd or frames"


def _number(value: Any) -> Any:
    if isinstance(value, int) and (isinstance(value, bool) or value < 1):
        raise ValueError(f"found {value}, expected first or the number of a frame, from 1")
    return value


FrameNumber = Annotated[int, Field(ge=1)]


class Anchor(Settings):
    """A known state of the sample: the values of descriptors, and the frames that have them.

    ``<descriptor>_mean`` is the known value, in the descriptor's unit, as in ``OS_mean: 3.0``. The frames are those
    of ``frame``, or those with a reading below or above a limit: ``voltage_below: 3.0``. If there are several limits,
    all must hold.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]  # type: ignore[assignment]

    frame: Literal["first"] | FrameNumber | None = None
    """``first``, or the number of the frame in its series, counted over all runs of the series and including frames
    set aside. ``first`` is the first frame that the agent answers."""
    element: str | None = None
    """Absorber with these values, if a series measures several."""
    sd: float = Field(default=0.02, gt=0)
    """Standard deviation of the known values, in their unit."""
    frames: int | None = Field(default=None, ge=1, le=1000)
    """Number of such frames to average, from the first on. Unset: 1 with ``frame``, 3 with a reading."""

    @field_validator("frame", mode="before")
    @classmethod
    def _is_a_frame(cls, value: Any) -> Any:
        if value not in (None, "first") and not isinstance(_number(value), int):
            raise ValueError(f"found {value!r:.80}, expected first or the number of a frame, from 1")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if unknown := [key for key in self._given if not _parted(key)[1]]:
            raise ValueError(f"found key {unknown[0]}, expected {_EXPECTED}")
        if not self.values:
            raise ValueError("found no known value, expected one, as OS_mean: 3.0")
        if (self.frame is None) == (not self._limits):
            raise ValueError("found no condition or two, expected frame (first or a number), or limits of readings")
        for reading in {reading for reading, _, _ in self._limits}:
            low, high = self._range(reading)
            if low >= high:
                raise ValueError(f"found {reading} above {low:g} and below {high:g}, which no frame is")
        return self

    @property
    def values(self) -> dict[str, float]:
        """Known values by descriptor, in its unit."""
        return {key.removesuffix(_VALUE): value for key, value in self._given.items() if key.endswith(_VALUE)}

    @property
    def count(self) -> int:
        """Number of frames to average."""
        return self.frames or (1 if self.frame is not None else 3)

    @property
    def last(self) -> int | None:
        """Number of the last frame that can still be averaged; None if any later frame can."""
        return self.frame + self.count - 1 if isinstance(self.frame, int) else None

    def concerns(self, frame: Frame) -> bool:
        """Return whether the values belong to a frame's absorber."""
        return self.element in (None, frame.element)

    def holds(self, frame: Frame, number: int) -> bool:
        """Return whether a frame, with its number in its series, has the known values."""
        if not self.concerns(frame):
            return False
        if isinstance(self.frame, int):
            return self.frame <= number < self.frame + self.count
        readings = frame.readings
        return all(
            readings.get(name, math.nan) < limit if end == _BELOW else readings.get(name, math.nan) > limit
            for name, end, limit in self._limits
        )

    @property
    def condition(self) -> dict[str, Any]:
        """Condition on a frame, for messages and for comparison."""
        return {"frame": self.frame, "element": self.element} | {f"{name}{end}": v for name, end, v in self._limits}

    @property
    def _given(self) -> dict[str, float]:
        return self.__pydantic_extra__

    @property
    def _limits(self) -> list[tuple[str, str, float]]:
        parts = [(_parted(key), value) for key, value in self._given.items()]
        return [(name, end, value) for (name, end), value in parts if end != _VALUE]

    def _range(self, reading: str) -> tuple[float, float]:
        given = self._given
        return given.get(reading + _ABOVE, -math.inf), given.get(reading + _BELOW, math.inf)


def _parted(key: str) -> tuple[str, str]:
    """Return the name and the suffix of a key; the suffix is empty if it has no meaning.

    >>> _parted("Ewe_V_above"), _parted("volts")
    (('Ewe_V', '_above'), ('volts', ''))
    """
    end = next((end for end in (_VALUE, _BELOW, _ABOVE) if key.endswith(end) and key != end), "")
    return key.removesuffix(end), end


def check_anchors(anchors: tuple[Anchor, ...]) -> tuple[Anchor, ...]:
    """Return the anchors; raise ValueError if two assign different values to the same frames."""
    for number, anchor in enumerate(anchors):
        for other in anchors[:number]:
            for name in anchor.values.keys() & other.values.keys():
                if anchor.condition == other.condition and anchor.values[name] != other.values[name]:
                    values = f"{other.values[name]:g} and {anchor.values[name]:g}"
                    raise ValueError(f"found {name}_mean {values} for the same frames, expected one value")
    return anchors


Anchors = Annotated[tuple[Anchor, ...], AfterValidator(check_anchors)]
"""Consistent anchors."""


class RelativeSettings(Settings):
    """Quantities of a frame relative to other frames of its series; none by default."""

    change: tuple[str, ...] = ()
    """Descriptors D for which ``D_change`` is published, the change since the first frame of the series."""
    rate: tuple[str, ...] = ()
    """Descriptors D for which ``D_rate`` is published, the slope of a robust line, in the unit of D per hour."""
    rate_frames: int = Field(default=15, ge=5, le=200)
    """Number of latest frames that the line is fitted to."""
    references: tuple[FrameNumber | str, ...] = Field(default=(), max_length=2)
    """One or two reference spectra: ``first``, the number of a frame, or a file with one spectrum. ``distance`` is
    the root mean square difference from the first one, edge steps. With two, ``position`` from 0 (first) to 1
    (second) is that of a linear combination, and ``position_misfit`` is its residual, edge steps."""

    @field_validator("references", mode="before")
    @classmethod
    def _are_frames_or_files(cls, values: Any) -> Any:
        for value in values if isinstance(values, list | tuple) else ():
            _number(value)
        return values

    @property
    def files(self) -> list[str]:
        """References that are files."""
        return [r for r in self.references if isinstance(r, str) and r != "first"]


class _Listed(Settings):
    xas_anchors: Anchors


def read_anchors(value: Any, units: Mapping[str, str], source: str) -> tuple[Anchor, ...]:
    """Read the list of anchors in a RunStart.

    Parameters
    ----------
    units : the known descriptors, with their units
    source : name of the document in messages

    Raises
    ------
    ConfigError
        The value is not a list of anchors, or it names a descriptor that no model estimates.
    """
    anchors = validate_settings({"xas_anchors": value}, _Listed, source).xas_anchors
    check_descriptors(f"{source}: xas_anchors", [name for anchor in anchors for name in anchor.values], units)
    return anchors


def anchor_of(values: Mapping[str, float], sd: float, units: Mapping[str, str]) -> Anchor:
    """Return the anchor for the next frame.

    Parameters
    ----------
    values : known values by descriptor, in its unit
    sd : their standard deviation
    units : the known descriptors, with their units

    Raises
    ------
    ConfigError
            There is no value, a value is not finite, or a name is not a descriptor.
    """
    content = {"frame": "first", "sd": sd} | {f"{name}_mean": value for name, value in values.items()}
    return read_anchors([content], units, "anchor")[0]


def check_descriptors(key: str, names: Sequence[str], units: Mapping[str, str]) -> None:
    """Raise ConfigError if a name under ``key`` is not a descriptor."""
    if unknown := [name for name in names if name not in units]:
        expected = f"a descriptor of a loaded model: {', '.join(sorted(units))}"
        raise ConfigError(f"{key}: found descriptor {unknown[0]!r}, expected {expected}")


def derived_units(settings: RelativeSettings, units: Mapping[str, str]) -> dict[str, str]:
    """Return the units of all relative quantities that may be published, by name.

    >>> derived_units(RelativeSettings(rate=("OS",)), {"OS": "e"})
    {'OS_anchored': 'e', 'OS_rate': 'e/h'}
    """
    derived = {f"{name}_anchored": unit for name, unit in units.items()}
    derived |= {f"{name}_change": units.get(name, "") for name in settings.change}
    derived |= {f"{name}_rate": f"{units.get(name) or 1}/h" for name in settings.rate}
    if settings.references:
        derived["distance"] = "dimensionless"
    if len(settings.references) == 2:
        derived |= dict.fromkeys(("position", "position_misfit"), "dimensionless")
    return derived


def setting_for(name: str, descriptors: Collection[str]) -> str:
    """Return the setting that a relative quantity needs; empty for any other name.

    >>> setting_for("OS_rate", ["OS"]), setting_for("OS_anchored", ["OS"]), setting_for("Os_rate", ["OS"])
    ('relative: {rate: [OS]}', 'anchors', '')
    """
    for kind in ("change", "rate"):
        if name.endswith(f"_{kind}") and (descriptor := name.removesuffix(f"_{kind}")) in descriptors:
            return f"relative: {{{kind}: [{descriptor}]}}"
    if name.endswith("_anchored") and name.removesuffix("_anchored") in descriptors:
        return "anchors"
    if name == "distance":
        return "relative: {references: [first]}"
    return "relative: {references: [first, FILE]}" if name in ("position", "position_misfit") else ""
