"""The MNIST UNet: as the course has it, and folded; what is public of it is what runs."""

import pytest
import torch
from tiny_mnist import tiny_unet

import composer
from composer import UNCONDITIONAL, Request, Sampler
from composer.model import evaluated
from composer.predictions import FLOW
from composer.schedules import FlowSchedule
from composer_plugins import CFG
from composer_plugins.backends.mnist import MnistBackend, MnistUNet
from composer_plugins.backends.mnist.folded import FoldedUNet

# As the course writes them; z is unflatten's or up1's output.
COURSE = {
    "class": lambda z, t, c: c * z + t,
    "add": lambda z, t, c: z + t,
    "multiply": lambda z, t, c: z * t,
    "none": lambda z, t, c: z,
}


@pytest.mark.parametrize("conditioning", sorted(COURSE))
def test_each_conditioning_is_the_courses_and_folds(conditioning):
    unet = tiny_unet(conditioning)
    x, time, labels = (
        torch.randn(3, 1, 28, 28),
        torch.tensor([0.2, 0.5, 0.9]),
        torch.tensor([3, 10, 0]),
    )
    one_hot = torch.eye(11)[labels, :10]

    def condition(z, place):
        known = {"time": time[:, None], "class": one_hot}
        blocks = {source: getattr(unet, source + place) for source in known}
        t, c = (
            blocks[source](known[source])[:, :, None, None] if blocks[source] else None
            for source in known
        )
        return COURSE[conditioning](z, t, c)

    labels = labels if conditioning == "class" else torch.zeros(3).long()
    with torch.no_grad():
        x0 = unet.stem(x)
        x1 = unet.down1(x0)
        x2 = unet.down2(x1)
        u1 = unet.up1(torch.cat([x2, condition(unet.unflatten(unet.flatten(x2)), "1")], 1))
        u2 = unet.up2(torch.cat([x1, condition(u1, "2")], 1))
        expected = unet.out(unet.head(torch.cat([x0, u2], 1)))
        torch.testing.assert_close(unet(x, time, labels), expected)
        folded = FoldedUNet(unet)
        for row in range(3):
            out = folded(x[[row]], time[[row]], labels[[row]])
            torch.testing.assert_close(out, expected[[row]], rtol=1e-5, atol=1e-5)


def test_a_network_is_conditioned_as_its_classes_allow():
    with pytest.raises(LookupError, match="Unknown conditioning 'times'. Did you mean|known"):
        MnistUNet(conditioning="times")
    with pytest.raises(
        ValueError, match="num_classes must be equal to 0 with conditioning 'add', got 10"
    ):
        MnistUNet(conditioning="add")
    with pytest.raises(
        ValueError, match="num_classes must be above 0 with conditioning 'class', got 0"
    ):
        MnistUNet(num_classes=0)


def test_the_size_is_that_of_the_course():
    assert sum(p.numel() for p in MnistUNet().parameters()) == pytest.approx(1.98e6, rel=0.02)


def folded_backend(width=4):
    return MnistBackend(FoldedUNet(tiny_unet("class", width)), FlowSchedule(), FLOW)


X = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(3))


def answer(backend, *requests):
    requests = requests or (Request(X, 0.3, 6), Request(X, 0.3, UNCONDITIONAL))
    with torch.no_grad():
        return torch.stack([out.prediction for out in evaluated(backend, requests)])


def test_folding_and_sharing_change_nothing_but_rounding():
    """All images asked alike, one image asked twice, and some asked more often than others."""
    unet, flipped = tiny_unet("class"), X.flip(-2)
    asked = [
        Request(X, 0.3, 6),
        Request(flipped, 0.3, 9),
        Request(X, 0.3, UNCONDITIONAL),
        Request(flipped, 0.3, UNCONDITIONAL),
        Request(X, 0.7, 6),
    ]
    for requests in (asked, asked[:1], asked[:2], asked[:4], [asked[0], asked[2]]):
        with torch.no_grad():
            expected = torch.stack(
                [
                    unet(
                        r.x,
                        FlowSchedule().unit_time(torch.tensor([r.t] * 3)),
                        torch.tensor([10 if r.condition is UNCONDITIONAL else r.condition] * 3),
                    )
                    for r in requests
                ]
            )
        for network in (unet, FoldedUNet(unet)):
            for share in (True, False):
                backend = MnistBackend(network, FlowSchedule(), FLOW, share)
                torch.testing.assert_close(
                    answer(backend, *requests), expected, rtol=1e-5, atol=1e-5
                )


@pytest.mark.parametrize("share", [True, False])
def test_hooks_on_every_module_are_called_and_keep_what_they_saw(share):
    """Also of a network that writes over what it has computed."""
    backend = composer.load_backend("mnist", share=share)
    kept = {}

    def hook(name):
        return lambda module, inputs, output: kept.update({name: (output, output.clone())})

    for name, module in backend.unet.named_modules():
        module.register_forward_hook(hook(name))
    answer(backend)
    assert kept.keys() == {name for name, _ in backend.unet.named_modules()}
    for name, (output, as_seen) in kept.items():
        assert torch.equal(output, as_seen), name


def test_a_hook_on_the_network_changes_the_sample():
    backend = folded_backend()
    sampler = Sampler(backend, [CFG(2.0)], num_inference_steps=2)
    plain = sampler.sample(3, [0]).x
    calls = []
    handle = backend.unet.register_forward_hook(lambda m, a, out: calls.append(1) or 0 * out)
    start = sampler.sample(3, [0]).x
    handle.remove()
    assert len(calls) == 2
    noise = torch.randn(1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(start, noise)
    assert torch.equal(sampler.sample(3, [0]).x, plain)


def test_every_weight_of_the_shipped_network_is_one_that_runs():
    """Each parameter, moved, moves the answer."""
    backend = composer.load_backend("mnist")
    plain = answer(backend)
    for name, weight in backend.unet.named_parameters():
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.add_(0.1)
        assert (answer(backend) - plain).abs().max() > 1e-4, name
        with torch.no_grad():
            weight.copy_(kept)
    assert torch.equal(answer(backend), plain)


def test_weights_are_loaded_folded_or_as_trained():
    torch.manual_seed(1)
    backend, unet = folded_backend(), tiny_unet("class", seed=1)
    before = answer(backend)
    other = MnistBackend(FoldedUNet(unet), FlowSchedule(), FLOW)
    expected = answer(other)
    assert (before - expected).abs().max() > 1e-2
    for weights in (unet.state_dict(), other.unet.state_dict()):
        ours = folded_backend()
        ours.unet.load_state_dict(weights)
        assert torch.equal(answer(ours), expected)
    with pytest.raises(RuntimeError, match="size mismatch"):
        backend.unet.load_state_dict(tiny_unet("class", 8).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        backend.unet.load_state_dict({})
    assert torch.equal(answer(backend), before)


def test_the_network_compiles_where_it_runs():
    backend, graphs = folded_backend(), []
    before = answer(backend)

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    backend.unet.compile(backend=counting)
    torch.testing.assert_close(answer(backend), before)
    assert graphs


def test_where_it_runs_is_where_the_network_is():
    """Not what a field of the backend remembers."""
    backend = folded_backend()
    torch.nn.Module.to(backend.unet, torch.float64)
    requests = [Request(X, 0.3, 6)]
    seen = []
    backend.unet.out.register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    answer(backend, *requests)
    assert seen == [torch.float64]
    torch.nn.Module.to(backend.unet, "meta")
    assert backend.device == torch.device("meta")


def test_a_network_in_training_mode_is_no_backend():
    with pytest.raises(ValueError, match="unet must be in evaluation mode, .* Call unet.eval"):
        MnistBackend(MnistUNet(hidden_size=4).train(), FlowSchedule(), FLOW)
