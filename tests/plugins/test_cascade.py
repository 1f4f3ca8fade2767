"""Cascades: what one does by hand, stage by stage, and what no stage may lose on the way."""

from itertools import pairwise

import pytest
import torch
from cascades import Recorder, agreeing, exact_models, halved, picture, resembling
from conftest import mixture
from torch.nn import functional as F

import composer
from composer import Sampler
from composer.solvers import DDIM
from composer.testing import GaussianMixtureBackend
from composer_plugins import (
    CFG,
    DDNM,
    Anagram,
    BlockMean,
    Cascade,
    Inpaint,
    LanPaint,
    SDEdit,
    Stage,
)
from composer_plugins.transforms import PatchPermute

BATCH = (3, 11)


def two_stages(plugins=(), enlarge=agreeing):
    small, large = exact_models()
    return Cascade([Stage(small), Stage(large, enlarge=enlarge)], plugins)


def test_it_is_what_one_does_by_hand():
    small, middle, large = exact_models((8, 16, 32))
    image = picture(32)
    cascade = Cascade(
        [
            Stage(small, [CFG(2.0)], num_inference_steps=7),
            Stage(middle, [CFG(3.0)], DDIM(), 5, enlarge=agreeing),
            Stage(large, num_inference_steps=6, max_rows=2, enlarge=agreeing),
        ],
        [SDEdit(image, 0.8)],
    )
    results = cascade.sample(1, BATCH)
    by_hand = [
        Sampler(small, [SDEdit(halved(image, 2), 0.8), CFG(2.0)], None, 7).sample(1, BATCH),
    ]
    link = agreeing(by_hand[-1].x.clamp(-1, 1))
    sampler = Sampler(middle, [SDEdit(halved(image, 1), 0.8), link, CFG(3.0)], DDIM(), 5)
    by_hand.append(sampler.sample(1, BATCH))
    link = agreeing(by_hand[-1].x.clamp(-1, 1))
    by_hand.append(Sampler(large, [SDEdit(image, 0.8), link], None, 6).sample(1, BATCH))

    assert [r.x.shape[-1] for r in results] == [8, 16, 32]
    for ours, theirs in zip(results, by_hand, strict=True):
        torch.testing.assert_close(ours.x, theirs.x)
        assert ours.stats.evaluated == theirs.stats.evaluated
    for before, after in pairwise(results):
        torch.testing.assert_close(halved(after.x, 1), before.x.clamp(-1, 1))


def pictures_of(size, count):
    """``count`` pictures that are the same at every size, as an exact model's components."""
    coarse = torch.randn(
        (count, 1, 4, 4), generator=torch.Generator().manual_seed(3), dtype=torch.float64
    ).clamp(-0.8, 0.8)
    return F.interpolate(coarse, (size, size), mode="nearest")


@pytest.mark.parametrize("view", ["rotate_cw", "negative", PatchPermute(4)])
def test_an_anagram_stays_one_in_every_stage(view):
    """Where one model's picture 1 is picture 0 seen through the view, both are found, at any size.

    Without the scaled view the later stages would be asked for two different pictures.
    """
    seen = composer.get_transform(view)
    backends = []
    for size in (16, 64):
        means = pictures_of(size, 1)
        both = torch.cat([means, seen(means)])
        backends.append(GaussianMixtureBackend(both, stds=[0.01, 0.01]))

    def agree(x):
        return DDNM(x, BlockMean(4))

    cascade = Cascade(
        [Stage(backends[0]), Stage(backends[1], enlarge=agree)],
        [Anagram({"identity": 0, view: 1})],
    )
    for result, backend in zip(cascade.sample(seeds=[0, 1]), backends, strict=True):
        assert (result.x - backend.means[0]).abs().max() < 0.1
        assert (seen(result.x) - backend.means[1]).abs().max() < 0.1


# Choosing


def test_chosen_seeds_go_on_as_they_would_have_with_the_others():
    cascade = two_stages([Anagram({"identity": 1, "flip": 2})])
    small, large = cascade.sample(seeds=range(6))
    kept = cascade.first.sample(seeds=range(6))
    torch.testing.assert_close(kept.x, small.x, rtol=0, atol=0)
    (chosen,) = cascade.enlarge(kept, seeds=[4, 1])
    assert chosen.seeds == (4, 1)
    torch.testing.assert_close(chosen.x, large.x[[4, 1]])
    (everything,) = cascade.enlarge(kept)
    torch.testing.assert_close(everything.x, large.x)
    (alone,) = two_stages([Anagram({"identity": 1, "flip": 2})]).sample(seeds=[4])[1:]
    torch.testing.assert_close(alone.x, large.x[4:5])


def test_images_of_seeds_stay_with_their_seeds():
    """An image a seed, in another order of seeds, and seeds that come twice."""
    backends = exact_models((8, 16))
    images = torch.cat([picture(16)[None], -picture(16)[None]])
    cascade = Cascade([Stage(b, enlarge=agreeing) for b in backends], [SDEdit(images, 0.3)])
    small, large = cascade.sample(1, seeds=[5, 6])
    (turned,) = cascade.enlarge(small, seeds=[6, 5])
    assert turned.seeds == (6, 5)
    torch.testing.assert_close(turned.x, large.x.flip(0))
    assert turned.recipe["call"]["seeds"] == [5, 6]  # the order they were made in
    with pytest.raises(ValueError, match="SDEdit: 2 images for 1 seeds"):
        cascade.enlarge(small, seeds=[6])
    small, large = cascade.sample(1, seeds=[5, 5])
    assert (large.x[0] - large.x[1]).abs().max() > 0.1
    torch.testing.assert_close(cascade.enlarge(small)[0].x, large.x)
    torch.testing.assert_close(cascade.enlarge(small, [5, 5])[0].x, large.x)
    with pytest.raises(ValueError, match=r"seed 5 is not so often in the result, which has \(5, 5"):
        cascade.enlarge(small, [5, 5, 5])


def test_what_is_not_a_result_cannot_go_on():
    cascade = two_stages()
    with pytest.raises(TypeError, match="result must be a stage's Result, got Tensor"):
        cascade.enlarge(cascade.first.sample().x)
    alone = Cascade(cascade.stages[:1])
    with pytest.raises(ValueError, match="the cascade must have at least two stages, got one"):
        alone.enlarge(alone.sample()[0])
    for stages in (cascade.stages[0], [cascade.stages[0].backend], []):
        with pytest.raises(TypeError, match=r"must be a list of Stage\(backend, ...\), got \w+\.$"):
            Cascade(stages)


def test_results_go_on_under_the_condition_they_were_made_for():
    cascade = two_stages([CFG(2.0)])
    small, large = cascade.sample(2, seeds=[5])
    assert small.condition == 2
    torch.testing.assert_close(cascade.enlarge(small)[0].x, large.x)
    unconditional = cascade.enlarge(cascade.first.sample(seeds=[5]))[0]
    assert (unconditional.x - large.x).abs().max() > 0.1


def test_any_stage_but_the_last_can_go_on():
    backends = exact_models((8, 16, 32))
    cascade = Cascade([Stage(b, enlarge=agreeing) for b in backends])
    _, middle, large = cascade.sample(1, seeds=BATCH)
    (again,) = cascade.enlarge(middle, [11])
    torch.testing.assert_close(again.x, large.x[1:])
    with pytest.raises(
        ValueError, match=r"of a stage before the last, .* got images of \(1, 32, 32\)"
    ):
        cascade.enlarge(large)
    with pytest.raises(ValueError, match=r"seed 7 is not in the result, which has \(3, 11\)"):
        cascade.enlarge(middle, [3, 7])


# What the stages are given


def test_each_stage_has_the_stack_of_its_size():
    heard = []
    stages = [Stage(backend, num_inference_steps=1) for backend in exact_models((8, 16))]
    stages[1] = Stage(stages[1].backend, num_inference_steps=1, enlarge=agreeing)
    Cascade(stages, [Recorder(heard)]).sample(3)
    assert heard == [((8, 8), (8, 8), 3), ((16, 16), (16, 16), 3)]


def test_the_known_region_is_kept_in_every_stage():
    image, mask = picture(16), torch.zeros(16, 16)
    mask[5:, 3:] = 1  # halved, the border goes through pixels
    kept = torch.zeros(8, 8, dtype=torch.bool)
    kept[:2], kept[:, :1] = True, True
    for plugins in ([Inpaint(image, mask)], [LanPaint(image, mask, 1), CFG(2.0)]):
        small, large = two_stages(plugins, enlarge=resembling).sample(1, seeds=[0, 1])
        assert torch.equal(large.x[..., mask == 0], image[:, mask == 0].expand(2, 1, -1))
        torch.testing.assert_close(
            small.x[..., kept], halved(image, 1)[:, kept].expand(2, 1, -1), rtol=0, atol=1e-12
        )
        assert (small.x[..., ~kept] != halved(image, 1)[:, ~kept]).all()


def test_an_overshoot_is_clipped_before_it_is_enlarged():
    small = GaussianMixtureBackend(torch.full((1, 1, 4, 4), 1.5, dtype=torch.float64), stds=[0.01])
    sent = []

    def enlarge(x):
        sent.append(x)
        return agreeing(x)

    cascade = Cascade([Stage(small), Stage(mixture(), enlarge=enlarge)])
    result, _ = cascade.sample(seeds=[0, 1])
    assert (result.x > 1.2).all()
    assert torch.equal(sent[-1], torch.ones(2, 1, 4, 4, dtype=torch.float64))
