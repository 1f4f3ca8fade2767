"""One forward: in inference mode without gradients, and its output is a plain tensor."""

import pytest
import torch
from torch import nn

from composer import Batch, Sampler, load_backend
from composer_plugins.backends.forward import forward


def call(net, x, mode):
    modes = []

    def network():
        modes.append(torch.is_inference_mode_enabled())
        return net(x).mT  # not contiguous

    with mode():
        out = forward(network, x, torch.float64)
    return out, modes[0]


@pytest.mark.parametrize(("mode", "inference"), [(torch.no_grad, True), (torch.enable_grad, False)])
def test_the_mode_follows_the_gradients_and_the_output_is_new(mode, inference):
    net, x = nn.Linear(4, 4), torch.randn(2, 3, 4, 4)
    out, inside = call(net, x, mode)
    assert inside is inference
    assert not out.is_inference()
    assert out.is_contiguous()
    assert out.dtype == torch.float64
    assert out.requires_grad is not inference
    torch.testing.assert_close(out.float(), net(x).mT)
    if inference:
        out.add_(1).requires_grad_().sum().backward()  # as a plugin may


def test_an_output_of_the_right_kind_is_copied_too():
    """Or a plugin would hold a tensor of inference mode."""
    x = torch.randn(1, 1, 2, 2)
    with torch.no_grad():
        out = forward(lambda: x * 2, x, x.dtype)
    assert not out.is_inference()


def test_the_mode_of_a_caller_stays():
    """Otherwise the network would save tensors of inference mode for a gradient, and raise."""
    net = nn.Linear(4, 4)
    with torch.inference_mode(), torch.enable_grad():
        x = torch.randn(1, 1, 4, 4)
        assert forward(lambda: net(x), x, x.dtype).is_inference()


def test_a_network_that_sampled_can_be_trained():
    backend = load_backend("mnist")
    Sampler(backend, num_inference_steps=1).sample(3)
    (network,) = backend.networks.values()
    weights = [w.requires_grad_() for w in network.parameters()]
    batch = Batch(torch.randn(1, 1, 28, 28), (0.5,), (backend.encode(3),), (0,), (None,))
    with torch.enable_grad():
        backend.evaluate(batch).prediction.square().mean().backward()
    assert all(w.grad is not None for w in weights)
