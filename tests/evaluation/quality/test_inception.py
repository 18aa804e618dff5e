"""The Inception network has the published weights' names and shapes, and torch-fidelity's numbers."""

import pytest
import torch
from made_inception import made_pixels, made_state

from vdvae_lr.evaluation.quality.inception import FEATURES, Inception

REFERENCE = {
    "mean": [0.7732042074203491, 0.7731781601905823],
    "standard deviation": [2.0190765857696533, 2.018480062484741],
    "feature 512": [0.013032732531428337, 0.012539446353912354],
    "feature 1536": [0.27842268347740173, 0.2782548666000366],
}
"""Of both images: from FeatureExtractorInceptionV3 of torch-fidelity 0.4.0 with the made weights, in float64 (its
output is float32), torch 2.13.0+cpu."""
TENSORS_OF_THE_PUBLISHED_FILE = 566
PARAMETERS_OF_INCEPTION = 21_785_568
"""Of torchvision's inception_v3 without its classifiers: 27,161,264 − 3,326,696 (AuxLogits) − 2,049,000 (fc)."""


@pytest.fixture(scope="module")
def network() -> Inception:
    with torch.device("meta"):
        made = Inception()
    made.to_empty(device="cpu")
    made.load_state_dict(made_state(made))
    return made.double().requires_grad_(False)


def test_features_are_those_of_torch_fidelity(network: Inception) -> None:
    features = network(made_pixels())
    assert features.shape == (2, FEATURES)
    found = {
        "mean": features.mean(1),
        "standard deviation": features.std(1),
        "feature 512": features[:, 512],
        "feature 1536": features[:, 1536],
    }
    for name, expected in REFERENCE.items():
        assert found[name].tolist() == pytest.approx(expected, rel=1e-5), name


def test_tensors_are_those_of_the_published_file(network: Inception) -> None:
    names = network.state_dict().keys()
    assert len(names | {"fc.weight", "fc.bias"}) == TENSORS_OF_THE_PUBLISHED_FILE
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS_OF_INCEPTION
    assert network.Mixed_7c.branch3x3dbl_3b.conv.weight.shape == (384, 384, 3, 1)
    assert not network.training
