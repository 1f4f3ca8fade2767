"""The library's own proofs, over this package."""

from composer_mirrors import Diagonal, FadingGuidance

from composer.testing import Check, check_stack, parametrize_with_checks


@parametrize_with_checks([Diagonal()])
def test_the_view(check: Check) -> None:
    check()


def test_the_guidance_keeps_the_law() -> None:
    check_stack([FadingGuidance()])
