import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_network import PlainSPT, plain

from xas_agent.models.network.ensemble import Served
from xas_agent.models.network.shape import SPTShape
from xas_agent.models.network.spt import SPT

SHAPES = st.builds(
    SPTShape,
    width=st.sampled_from([4, 8, 24]),
    heads=st.sampled_from([1, 2, 4]),
    blocks=st.integers(1, 2),
    node_points=st.sampled_from([1, 2, 4]),
    window=st.integers(1, 3),
    latent=st.just(12),
    gathered=st.just(6),
    key=st.just(5),
    dropout=st.just(0.0),
    frequency=st.booleans(),
    graph=st.booleans(),
    frame_bands=st.sampled_from([None, 1]),
    grid_points=st.integers(32, 47),
    periods=st.sampled_from([(3,), (7, 4), (8, 5, 3)]),
    classes=st.sampled_from([(3,), (2, 6), (4, 4, 3)]),
    regressed=st.integers(1, 3),
    short_points=st.sampled_from([None, 26]),
    members=st.integers(1, 3),
)


def spectra(shape: SPTShape, n: int) -> torch.Tensor:
    x = torch.randn(n, shape.grid_points)
    if shape.short_points is not None:
        ends = torch.randint(shape.short_points, shape.grid_points + 1, (n, 1))
        x[torch.arange(shape.grid_points) >= ends] = torch.nan
    return x


def disturbed(network: torch.nn.Module) -> None:
    """Make norms and biases differ from 1 and 0."""
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


@given(SHAPES, st.integers(0, 2**31), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_the_network_and_its_gradients_are_those_of_the_plain_form(shape, seed, n):
    torch.manual_seed(seed)
    network, slow = SPT(shape), PlainSPT(shape)
    disturbed(network)
    slow.load_state_dict(network.state_dict())
    x = spectra(shape, n)
    if seed % 2:  # spectra of each member's own, as in training
        x = torch.stack([x + 0.1 * k for k in range(shape.members)], dim=1)
    answers, expected = network(x), slow(x)
    for answer, same in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer, same, atol=2e-5, rtol=1e-4)
    for each in (answers, expected):
        sum(part.square().mean() for part in each).backward()
    wanted = dict(slow.named_parameters())
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.parametrize("spread", [0.5, 30.0])  # keys that single precision serves, and others
@given(shape=SHAPES, seed=st.integers(0, 2**31), n=st.integers(1, 5))
@settings(max_examples=10, deadline=None)
def test_answers_are_those_of_the_plain_form(spread, shape, seed, n):
    torch.manual_seed(seed)
    served = Served(shape, sites=20, outliers=8).eval()
    disturbed(served.spt)
    served.spread.fill_(1.0)
    served.temperature.uniform_(0.5, 3.0)
    served.share.uniform_()
    served.recall.keys.normal_().mul_(spread)
    one_hot = [torch.nn.functional.one_hot(torch.randint(c, (20,)), c) for c in shape.classes]
    one_hot[0][3] = 0  # a site without that label
    targets = torch.randn(20, shape.regressed)
    targets[5, 0] = torch.nan
    served.recall.learn(one_hot, targets)
    served.ood_score.fit(torch.randn(60, served.short), outliers=torch.randn(8, served.short))
    x = spectra(shape, n)
    with torch.no_grad():
        answers = served(x)
        assert answers.isfinite().all()
        torch.testing.assert_close(answers, plain(served, shape)(x), atol=2e-5, rtol=1e-4)


@given(SHAPES, st.integers(0, 2**31), st.integers(8, 20))
@settings(max_examples=6, deadline=None)
def test_many_frames_in_torchscript_are_answered_as_in_the_plain_form(shape, seed, n):
    torch.manual_seed(seed)
    network, slow = SPT(shape).eval(), PlainSPT(shape).eval()
    disturbed(network)
    slow.load_state_dict(network.state_dict())
    x = spectra(shape, n)
    with torch.no_grad():
        for answer, same in zip(torch.jit.freeze(torch.jit.script(network))(x), slow(x), strict=True):
            torch.testing.assert_close(answer, same, atol=2e-5, rtol=1e-4)
