"""Small networks for digits, untrained."""

import torch

from composer_plugins.backends.mnist import MnistUNet


def tiny_unet(conditioning, width=4, seed=0):
    """A network of each kind, with statistics and conditioning that matter."""
    torch.manual_seed(seed)
    num_classes = 10 if conditioning == "class" else 0
    unet = MnistUNet(hidden_size=width, num_classes=num_classes, conditioning=conditioning)
    for module in unet.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # statistics are those of the batch below
    with torch.no_grad():
        for name, block in unet.named_children():
            if name.startswith(("time", "class")):
                block[-1].weight.mul_(20)  # untrained, they hardly matter
        unet.train()(torch.randn(8, 1, 28, 28), torch.rand(8), torch.zeros(8).long())
    return unet.eval()
