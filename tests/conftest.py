"""Backends that the tests share. None downloads anything."""

import shutil
from functools import cache

import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, settings

from composer.predictions import PREDICTIONS
from composer.schedules import DiscreteSchedule, FlowSchedule
from composer.testing import GaussianMixtureBackend
from composer_plugins.backends.mnist import MnistBackend, MnistUNet
from composer_plugins.backends.mnist.folded import FoldedUNet

# The suite runs in as many processes as there are cores, and its networks are small.
torch.set_num_threads(1)
settings.register_profile(
    "composer", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("composer")


def mixture(schedule=None, prediction="flow", shape=(1, 8, 8), components=4, **options):
    """A Gaussian mixture of well-separated random images."""
    means = torch.randn(
        (components, *shape), generator=torch.Generator().manual_seed(7), dtype=torch.float64
    ).clamp(-1, 1)
    return GaussianMixtureBackend(
        means,
        stds=[0.1 + 0.05 * k for k in range(components)],
        schedule=schedule or FlowSchedule(),
        prediction=PREDICTIONS[prediction],
        **options,
    )


@pytest.fixture
def flow_mixture():
    return mixture()


@pytest.fixture(params=["flow", "wide flow", "discrete"])
def schedule(request):
    return {
        "flow": FlowSchedule(),
        "wide flow": FlowSchedule(noise_scale=2.0, shift=3.0, last=0.001),
        "discrete": DiscreteSchedule.linear(),
    }[request.param]


@pytest.fixture(scope="session")
def tiny_if(tmp_path_factory):
    """Folders of a tiny DeepFloyd IF by stage, as diffusers saves them."""
    import tiny_if

    return tiny_if.build(tmp_path_factory.mktemp("tiny_if"))


@pytest.fixture(scope="session")
def tiny_upscaler(tmp_path_factory):
    """The folder of a tiny x4 upscaler, IF's stage III, as diffusers saves it."""
    import tiny_upscaler

    return tiny_upscaler.build(tmp_path_factory.mktemp("tiny_upscaler"))


@pytest.fixture(scope="session")
def tiny_latent(tmp_path_factory):
    """A function of the name of a latent family -> its tiny pipeline, and the folder of it."""
    import tiny_latent

    return cache(lambda name: tiny_latent.build(name, tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="module")
def precision(request):
    """What both sides of a comparison with diffusers compute in; float32 where a test asks."""
    return getattr(request, "param", torch.float64)


@pytest.fixture
def folder(tiny_if, tmp_path):
    """The tiny IF's stage I in a folder that a test may spoil."""
    return shutil.copytree(tiny_if[1], tmp_path / "IF")


@pytest.fixture(scope="session")
def embedded(tiny_if, tmp_path_factory):
    """A file of the tiny IF's embeddings that the command wrote."""
    from composer_plugins.backends.deepfloyd.command import embed

    file = tmp_path_factory.mktemp("embedded") / "prompts.safetensors"
    done = CliRunner().invoke(
        embed,
        ["a photo of a cat", "A photo of a DOG", "--model", str(tiny_if[1]), "--cache", str(file)],
    )
    assert done.exit_code == 0, done.output
    assert f"encoded 3 prompts, 3 are now in {file}" in done.output
    return file


@pytest.fixture(scope="session")
def tiny_mnist():
    """An untrained MNIST UNet of width 8 with batch-norm statistics that are not trivial."""
    torch.manual_seed(0)
    unet = MnistUNet(hidden_size=8)
    unet.train()
    with torch.no_grad():
        for _ in range(20):
            x = torch.randn(16, 1, 28, 28)
            unet(x, torch.rand(16), torch.randint(0, 11, (16,)))
        for block in (unet.time1, unet.time2, unet.class1, unet.class2):
            block[-1].weight.mul_(5)  # untrained, they hardly matter
    return MnistBackend(FoldedUNet(unet), FlowSchedule(), PREDICTIONS["flow"])


@pytest.fixture
def studio():
    """Runs a command of the studio."""
    from studio_commands import COMMANDS

    def invoke(name, *arguments):
        return CliRunner().invoke(COMMANDS[name], [str(one) for one in arguments])

    return invoke


@pytest.fixture
def six_nine(tmp_path):
    """A recipe of three steps."""
    from studio_commands import TEXT

    written = tmp_path / "six-nine.toml"
    written.write_text(TEXT)
    return written


THREADS = torch.get_num_threads()


def pytest_runtest_teardown():
    """Spoilt examples of the kit change what all of a process shares: the next test has it back,
    whichever that is where tests run in several processes."""
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(THREADS)
