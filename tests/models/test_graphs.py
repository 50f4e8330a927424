"""Work that is repeated: what is recorded, what is compiled, and what happens if either fails.

On a CPU stand-ins note a function and call it again, and count compiled passes; test_gpu.py has the real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models import graphs
from models.graphs import WARM_UP, CompiledForward, Replays, compiled_forward, recorder, worth_compiling

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(graphs._Process, "steps", 0)
    monkeypatch.setattr(graphs._Process, "failure", None)
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path))


def test_nothing_is_recorded_on_a_cpu() -> None:
    with recorder(CPU, torch.Generator(), wanted=True) as record:
        assert record is None


def test_each_kind_is_recorded_after_its_warm_up_and_replayed_on_its_own_tensors() -> None:
    calls: list[tuple[str, list[int]]] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        calls.append(("record", []))
        return work

    replays = Replays(record)
    for number in range(WARM_UP + 2):
        replays("a", lambda x: calls.append(("a", x.tolist())), torch.tensor([number]))
    replays("b", lambda x: calls.append(("b", x.tolist())), torch.tensor([9]))
    replays(None, lambda x: calls.append(("none", x.tolist())), torch.tensor([8]))
    plain = [("a", [number]) for number in range(WARM_UP)]
    replayed = [("record", []), ("a", [WARM_UP]), ("a", [WARM_UP + 1])]
    assert calls == [*plain, *replayed, ("b", [9]), ("none", [8])]
    assert replays.has_recorded


def test_work_without_a_recorder_is_done_as_it_is() -> None:
    done: list[int] = []
    replays = Replays(None)
    for number in range(10):
        replays("a", lambda number=number: done.append(number))
    assert done == list(range(10))
    assert not replays.has_recorded


def test_trainings_are_compiled_once_they_are_long_together() -> None:
    assert not worth_compiling(CPU, 10**9)
    assert not worth_compiling(CUDA, graphs.COMPILE_FROM - 1)
    assert worth_compiling(CUDA, 1)


def test_deterministic_steps_are_never_compiled() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert not worth_compiling(CUDA, 10**9)
    finally:
        torch.use_deterministic_algorithms(False)


def test_calls_of_a_network_are_compiled_inside_only() -> None:
    network, seen = nn.Linear(2, 1), list[str]()

    def forward(given: nn.Module, inputs: torch.Tensor) -> Any:
        seen.append("compiled")
        return type(given).forward(given, inputs)

    compiled = CompiledForward(forward)
    for _ in range(2):
        compiled.run(network, lambda: network(torch.zeros(1, 2)).sum().backward(), "kind")
    network(torch.zeros(1, 2))
    assert seen == ["compiled", "compiled"]
    assert compiled.is_used


def test_what_cannot_be_compiled_is_computed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    network, outputs = nn.Linear(2, 1), list[torch.Tensor]()

    def broken(given: nn.Module, inputs: torch.Tensor) -> Any:
        raise RuntimeError("no C compiler\nand a long trace")

    compiled = CompiledForward(broken)
    for _ in range(2):
        compiled.run(network, lambda: outputs.append(network(torch.ones(1, 2))), "kind")
    assert not compiled.is_used
    assert torch.equal(outputs[0], network(torch.ones(1, 2)))
    assert capsys.readouterr().err == "training steps are not compiled: RuntimeError: no C compiler and a long trace\n"
    assert not worth_compiling(CUDA, 10**9)


def test_a_compiler_that_cannot_be_set_up_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "file"))
    network, outputs = nn.Linear(2, 1), list[torch.Tensor]()
    CompiledForward(compiled_forward).run(network, lambda: outputs.append(network(torch.ones(1, 2))), "kind")
    assert torch.equal(outputs[0], network(torch.ones(1, 2)))
    assert "training steps are not compiled: NotADirectoryError" in capsys.readouterr().err


def test_an_error_of_the_work_itself_is_not_taken_for_the_compiler_s() -> None:
    def fail() -> None:
        raise ValueError("mine")

    compiled = CompiledForward(lambda network, inputs: None)
    with pytest.raises(ValueError, match="mine"):
        compiled.run(nn.Linear(2, 1), fail, "kind")
    assert worth_compiling(CUDA, 10**9)


def test_networks_of_equal_shapes_share_what_was_compiled() -> None:
    from torch._dynamo.utils import counters

    from models.classifier.networks import build_classifier
    from models.classifier.recipe import Recipe

    forward = torch.compile(graphs._plain_forward, backend="aot_eager", dynamic=False, fullgraph=True)
    images = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    for seed in range(3):
        network = build_classifier(Recipe(width=2), 3, weights_seed=seed)
        compiled = CompiledForward(forward)
        given: list[list[torch.Tensor]] = []

        def work(network: nn.Module = network, given: list[list[torch.Tensor]] = given) -> None:
            network.zero_grad()
            network(images)[0].square().sum().backward()
            given.append([parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None])

        compiled.run(network, work, "kind")
        work()
        for one, other in zip(*given, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        assert compiled.is_used
    assert counters["stats"]["unique_graphs"] == 1
