"""The stand-in for a card refuses what a card refuses, and captures as a card does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.card import Card, card

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the card itself is there")
GPU = torch.device("cuda")


@pytest.fixture
def on() -> Iterator[Card]:
    """The stand-in."""
    with card() as made:
        yield made


def test_results_lie_where_their_operands_do(on: Card) -> None:
    here, there = torch.ones(2), torch.ones(2, device=GPU)
    network = torch.nn.Linear(2, 1).to(GPU)
    network(there).sum().backward()
    assert network.weight.grad is not None
    found = (here, there, there[:1], torch.zeros_like(there), network.weight, network.weight.grad, there.cpu())
    assert [tensor.device.type for tensor in found] == ["cpu", "cuda", "cuda", "cuda", "cuda", "cuda", "cpu"]
    with pytest.raises(RuntimeError, match="same device"):
        here + there
    assert (there + torch.tensor(1.0)).is_cuda  # a number of the host is no operand on another device


def test_what_a_card_refuses(on: Card) -> None:
    with pytest.raises(TypeError, match="can't convert cuda"):
        torch.ones(2, device=GPU).numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, generator=torch.Generator(), device=GPU)


def test_waiting_is_noted(on: Card) -> None:
    values = torch.arange(3, device=GPU)
    assert on.waits == []
    assert (values.sum().item(), values[values > 0].tolist(), len(values.nonzero())) == (3, [1, 2], 2)
    assert len(on.waits) == 4


@pytest.mark.parametrize(
    "work",
    [
        lambda values: float(values.sum()),
        lambda values: values.cpu(),
        lambda values: values[values > 0],
        lambda values: values[torch.tensor([0])],
        lambda values: torch.tensor([1.0], device=GPU),
        lambda values: torch.ones(1).to(GPU),
    ],
    ids=["a number", "a copy to the host", "a mask", "an index of the host", "a new tensor", "a copy from the host"],
)
def test_captures_refuse_the_host(work: object, on: Card) -> None:
    values, graph = torch.arange(3.0, device=GPU), torch.cuda.CUDAGraph()
    assert callable(work)
    with pytest.raises(RuntimeError, match="stream is capturing"), torch.cuda.graph(graph):
        work(values)


def test_captured_work_is_done_by_replays_with_the_numbers_of_the_capture(on: Card) -> None:
    total, rate, generator = torch.zeros(1, device=GPU), 2.0, torch.Generator(GPU).manual_seed(0)
    drawn = torch.zeros(1, device=GPU)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        doubled = total + rate
        total += rate
        drawn.copy_(torch.rand(1, generator=generator, device=GPU))
    assert (total.item(), drawn.item()) == (0.0, 0.0)
    rate = 5.0
    graph.replay()
    first = drawn.item()
    graph.replay()
    assert (total.item(), doubled.item(), on.replays) == (4.0, 4.0, 2)
    expected = torch.rand(2, generator=torch.Generator(GPU).manual_seed(0), device=GPU)
    assert [first, drawn.item()] == expected.tolist()
