"""EOAL's losses with masks, for recorded steps, against those that pick the images out."""

from __future__ import annotations

import pytest
import torch

from models.classifier.networks import build_classifier
from models.classifier.open_set import OpenSetObjective, build_detector
from models.classifier.recipe import Recipe

CENTRES = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 0.0]])


@pytest.mark.parametrize("labels", [[0, 3, 1, 3, 2, 3], [0, 1, 2, 2, 1, 0], [3, 3, 3, 3, 3, 3]])
@pytest.mark.parametrize("num_centres", [2, 4])
def test_masked_losses_and_gradients_are_those_of_the_images_picked_out(labels: list[int], num_centres: int) -> None:
    labels_B = torch.tensor(labels)
    recipe = Recipe(width=2)
    images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    centres_CD = torch.randn(num_centres, 16, generator=torch.Generator().manual_seed(1))
    num_ood = int((labels_B == 3).sum())
    given = []
    for static in (False, True):
        network = build_detector(build_classifier(recipe, 5, weights_seed=0), 4, weights_seed=0).eval()
        objective = OpenSetObjective(
            num_known=4, is_ood_N=labels_B == 3, temperature=0.5, alpha=0.8, regulariser=0.1, static=static,
            ood_features=lambda network: torch.zeros(0),
            cluster=lambda features: (centres_CD, torch.arange(num_ood) % num_centres),
        )  # fmt: skip
        objective.prepare(network, 0.0)
        assert objective.phase() == ("open set" if static else None)
        loss = objective.loss(network.eval(), images, labels_B.where(labels_B < 3, 4), torch.arange(6))
        loss.backward()  # type: ignore[no-untyped-call]
        given.append(
            (loss.item(), [parameter.grad for parameter in network.parameters() if parameter.grad is not None])
        )
    (picked, picked_grads), (masked, masked_grads) = given
    assert masked == pytest.approx(picked, rel=1e-5)
    for one, other in zip(picked_grads, masked_grads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6)
        assert torch.isfinite(other).all()


def test_clusters_stay_in_their_tensors_from_pass_to_pass() -> None:
    clusters = iter([(CENTRES, torch.tensor([0, 1, 1])), (CENTRES[:1] + 1, torch.tensor([0, 0, 0]))])
    objective = OpenSetObjective(
        num_known=3, is_ood_N=torch.tensor([True, False, True, True]), temperature=1.0, alpha=0.5, regulariser=1.0,
        static=True, ood_features=lambda network: torch.zeros(0), cluster=lambda features: next(clusters),
    )  # fmt: skip
    network = build_classifier(Recipe(width=2), 4, weights_seed=0)
    objective.prepare(network, 0.0)
    kept = objective._static_clusters
    assert kept is not None
    places = kept.centres_KD.data_ptr(), kept.of_ood_M.data_ptr()
    objective.prepare(network, 0.5)
    assert objective._static_clusters is kept
    assert (kept.centres_KD.data_ptr(), kept.of_ood_M.data_ptr()) == places
    assert kept.is_centre_K.tolist() == [True, False, False]
    assert kept.centres_KD[0].tolist() == [4.0, 1.0, 2.0]
    assert kept.of_ood_M.tolist() == [0, 0, 0]
