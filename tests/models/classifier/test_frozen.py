"""Linear heads on the features of frozen encoders: named, stored once, trained like any classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from data.imageset import ArrayImages, DataSet, ImageSet, make_data_set
from models.classifier.fit import fit
from models.classifier.frozen import frozen_features
from models.classifier.inputs import FeatureRows, Normalise
from models.classifier.networks import build_classifier
from models.classifier.predict import predict
from models.classifier.recipe import RECIPES, EncoderName, Recipe, named_recipe
from models.clipn.source import ClipnSource
from models.device import Machine

CPU = torch.device("cpu")
PLAIN = Normalise((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), CPU)
LINEAR = {"network": "linear", "encoder": "clipn", "flip": False, "crop_padding": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLPURE_CACHE", str(tmp_path / "cache"))


def colours() -> DataSet:
    """Dark and bright images of 8 pixels."""
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    pixels = (rng.integers(0, 60, (24, 8, 8, 3)) + 150 * labels[:, None, None, None]).astype(np.uint8)
    train, test = (
        ImageSet(images=ArrayImages(pixels[part]), labels=labels[part]) for part in (slice(0, 16), slice(16, 24))
    )
    half = (0.5, 0.5, 0.5)
    return make_data_set(name="colours", class_names=("dark", "bright"), train=train, test=test, mean=half, std=half)


def features(encoder: str, lines: list[str] | None = None) -> tuple[FeatureRows, FeatureRows]:
    heard = [] if lines is None else lines
    return frozen_features(colours(), encoder, clipn=ClipnSource(), device=CPU, progress=heard.append)


def test_an_untrained_encoder_and_a_head_learn_two_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.classifier.frozen._timm_input", small_input)
    train, test = features("untrained:resnet10t")
    assert (len(train), len(test), train.num_features) == (16, 8, 512)
    recipe = Recipe(**LINEAR, steps=60, batch_size=8, learning_rate=0.05)
    network = build_classifier(recipe, 2, weights_seed=0, num_features=train.num_features)
    labels = np.arange(16, dtype=np.int64) % 2
    rows = train.load(np.arange(16))
    fit(network, rows, labels, recipe=recipe, normalise=PLAIN, batches_seed=0, machine=Machine(device=CPU))
    given = predict(network, test, np.arange(8), recipe=recipe, normalise=PLAIN, device=CPU)
    assert given.logits_NK.argmax(axis=1).tolist() == [0, 1] * 4
    np.testing.assert_array_equal(given.features_ND, test.load(np.arange(8)))
    assert given.head is not None

    monkeypatch.setattr("models.classifier.frozen._timm_network", None)  # from the store: nothing is loaded
    again, _ = features("untrained:resnet10t")
    np.testing.assert_array_equal(again.load(np.arange(16)), rows)


def small_input(config: object, pixels: np.ndarray, device: torch.device) -> torch.Tensor:
    """Without the resizing to 176 pixels, which would take seconds."""
    return torch.from_numpy(np.repeat(np.repeat(pixels, 4, 1), 4, 2)).permute(0, 3, 1, 2).float() / 255


def test_weights_from_a_file_count_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.classifier.frozen._timm_input", small_input)
    torch.manual_seed(1)
    state = timm.create_model("resnet10t", num_classes=5).state_dict()  # with a head, which is left out
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    name = f"timm:resnet10t@{path}"
    first = features(name)[0].load(np.arange(3))
    identity = EncoderName.parse(name).identity(clipn=None)
    other = features("untrained:resnet10t")[0].load(np.arange(3))
    assert not np.allclose(first, other)
    del state["conv1.0.weight"]
    save_file(state, path)
    assert EncoderName.parse(name).identity(clipn=None) != identity
    with pytest.raises(ValueError, match=r"does not fit the architecture: missing \['conv1\.0\.weight'\]"):
        features(name)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("vit", "expected clipn, timm:<model>"),
        ("timm:", "expected clipn, timm:<model>"),
        ("untrained:resnet10t@file", "expected clipn, timm:<model>"),
        ("timm:resnet10000", "timm has no model 'resnet10000'"),
        ("timm:resnet10t@/no/file", "there is no file /no/file"),
    ],
)
def test_bad_encoders(encoder: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features(encoder)


def test_weights_that_cannot_be_downloaded_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    original = timm.create_model

    def away(name: str, pretrained: bool = False, **settings: object) -> object:
        if pretrained:
            raise OSError("no network")
        return original(name, **settings)

    monkeypatch.setattr(timm, "create_model", away)
    with pytest.raises(ValueError, match=r"resnet10t are missing.*recipe\.encoder=timm:resnet10t@PATH"):
        features("timm:resnet10t")


@pytest.mark.parametrize("tiny", [False, True])
def test_the_head_on_crops_is_trained_as_in_table_6(tiny: bool) -> None:
    """Protocol 1.9: 10 times 50 steps (Tiny-ImageNet 10 times 100), rate .01, a tenth of it after 5 and again 7."""
    recipe = Recipe(**named_recipe({"name": "paper-clip-linear-crops" + "-tiny" * tiny}))
    assert (recipe.encoder, recipe.smallest_crop, recipe.learning_rate) == ("clipn", 0.9, 0.01)
    assert (recipe.num_steps(500), recipe.milestones, recipe.decay) == (1000 if tiny else 500, (0.5, 0.7), 0.1)
    on_stored_features = Recipe(**named_recipe({"name": "paper-clip-linear" + "-tiny" * tiny}))
    assert on_stored_features == recipe.model_copy(update={"smallest_crop": None})


def test_crops_are_given_by_the_encoder_that_gave_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.classifier.frozen._timm_input", small_input)
    assert features("untrained:resnet10t")[0].crops is None
    train, test = frozen_features(
        colours(), "untrained:resnet10t", clipn=ClipnSource(), device=CPU, progress=print, crops=True
    )
    assert test.crops is None
    assert train.crops is not None
    source = train.crops(np.array([3, 1]))
    np.testing.assert_array_equal(source.pixels_NHH3, colours().train.images.load(np.array([3, 1])))  # type: ignore[attr-defined]
    recipe = Recipe(**LINEAR, smallest_crop=0.9, batch_size=2)
    crops = source.batches(recipe, torch.Generator().manual_seed(0)).augment(torch.tensor([0, 1]))
    assert crops.shape == (2, train.num_features)
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(source.pixels_NHH3).permute(0, 3, 1, 2).float(),
        size=176,
        mode="bicubic",  # type: ignore[attr-defined]
    )
    tower = source.tower  # type: ignore[attr-defined]
    assert (tower.image_size, len(tower.mean)) == (176, 3)
    with torch.no_grad():
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (tower.mean, tower.std))
        expected = tower.network((whole.clamp(0, 255).div(255) - mean) / std)
    assert torch.nn.functional.cosine_similarity(crops, expected).min() > 0.9


def test_recipes_by_name() -> None:
    assert named_recipe({"name": "demo", "steps": 7}) == RECIPES["demo"] | {"steps": 7}
    assert Recipe(**named_recipe({"name": "paper-cifar"})) == Recipe()
    for name in RECIPES:
        Recipe(**named_recipe({"name": name}))
    with pytest.raises(ValueError, match=r"unknown recipe 'paper-cifra' \(did you mean 'paper-cifar'\?\)"):
        named_recipe({"name": "paper-cifra"})
    domainnet = Recipe(**named_recipe({"name": "paper-domainnet"}))
    assert (domainnet.epochs, domainnet.learning_rate, domainnet.network) == (100, 0.01, "linear")


def test_steps_take_the_place_of_a_named_recipes_passes() -> None:
    recipe = Recipe(**named_recipe({"name": "paper-domainnet", "steps": 300}))
    assert (recipe.num_steps(1000), recipe.length) == (300, "300 training steps")
    recipe = Recipe(**named_recipe({"name": "paper-domainnet", "epochs": 3, "batch_size": 100}))
    assert (recipe.num_steps(1000), recipe.length) == (30, "3 passes of training")
    assert Recipe(**recipe.model_dump()) == recipe  # a worker gets a trial's recipe in full
    with pytest.raises(ValueError, match=r"recipe\.steps = 300 and recipe\.epochs = 3: give one"):
        named_recipe({"name": "paper-domainnet", "steps": 300, "epochs": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "linear"}, "network linear needs an encoder"),
        ({"encoder": "clipn"}, "resnet18 and convnet have none"),
        (LINEAR | {"flip": True}, "cannot be flipped"),
        (LINEAR | {"rotation": 5.0}, "cannot be flipped"),
        ({"smallest_crop": 0.9}, "smallest_crop is for a linear head's encoder"),
    ],
)
def test_recipes_that_contradict_themselves(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe(**changes)
