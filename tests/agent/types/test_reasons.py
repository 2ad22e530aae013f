"""The published texts of reasons and flags."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from xas_agent.agent.types.reasons import Flag, Reason, Refusal


@given(st.sets(st.sampled_from(list(Flag))), st.randoms(use_true_random=False))
def test_published_flags_are_read_again(flags, random):
    listed = random.sample(sorted(flags), len(flags))
    assert set(Flag.of(", ".join(listed))) == flags


def test_no_flag_contains_another():
    assert not [(a, b) for a, b in permutations(Flag, 2) if a.value in b.value]


def test_text_of_a_refusal_is_reason_and_detail():
    assert str(Refusal(Reason.NO_MODEL)) == f"{Refusal(Reason.NO_MODEL)}" == "no model"
    assert f"{Refusal(Reason.NO_MODEL, 'loaded are none')}" == "no model: loaded are none"
