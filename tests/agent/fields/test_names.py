"""The table of role names and synonyms for streams and files."""

import pytest

from xas_agent.agent.fields import SYNONYMS, FieldSettings, UnknownRoleError, match_synonyms, role_of


@pytest.mark.parametrize(
    ("role", "name"),
    [("energy", "eV"), ("i0", "ion_0"), ("it", "IC1"), ("iref", "ic2"), ("fluorescence", "FF1")],
)
def test_names_of_files_are_not_recognised_in_streams(role, name):
    assert match_synonyms(role, [name]) == []
    assert match_synonyms(role, [name], in_files=True) == [name]


def test_roles_are_recognised_by_name_and_spelling():
    assert {role_of(role) for role in SYNONYMS} == set(SYNONYMS)
    assert (role_of("if"), role_of("ir"), role_of("norm")) == ("fluorescence", "iref", "normalised")
    assert (role_of("I0"), role_of("itrans"), role_of("irefer")) == ("i0", "it", "iref")
    with pytest.raises(UnknownRoleError, match=r"no role 'angle'; expected one of energy, i0, it, iref \(or ir\)"):
        role_of("angle")


def test_roles_are_keys_of_the_settings():
    formulas = {"normalised"}  # of the field mu
    assert set(SYNONYMS) - formulas <= set(FieldSettings.model_fields)


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("i0", "I0_eh1"),
        ("it", "It_eh2_counts"),
        ("i0", "I0/ct1"),
        ("i0", "I₀"),
        ("it", "Iₜ"),
        ("mu", "μ(E)"),
        ("mu", "µE"),
    ],
)
def test_names_with_a_hutch_subscripts_and_greek_letters(role: str, name: str) -> None:
    assert match_synonyms(role, [name, "other"]) == [name]
