"""``load_backend`` is typed by what the loaders of the library take."""

import inspect
import typing

import pytest

import composer
from composer import loading
from composer.named import Device, DType
from composer.registry import OWN

*TYPED, REFUSED, ANY = [
    inspect.signature(o, eval_str=True) for o in typing.get_overloads(composer.load_backend)
]
BY_NAME = {
    name: signature
    for signature in TYPED
    for name in typing.get_args(signature.parameters["name"].annotation)
}


def own_loaders():
    offers = composer.installed().offers.values()
    return {o.name: o.factory for o in offers if o.kind == "backend" and o.package == OWN}


def test_every_backend_of_the_library_is_typed():
    assert set(BY_NAME) == set(typing.get_args(loading.Known)) == set(own_loaders())


@pytest.mark.parametrize("name", BY_NAME)
def test_an_overload_takes_what_the_loader_takes(name):
    typed = [p for n, p in BY_NAME[name].parameters.items() if n != "name"]
    loader = inspect.signature(own_loaders()[name], eval_str=True)
    assert [(p.name, p.default, p.annotation) for p in typed] == [
        (p.name, p.default, p.annotation) for p in loader.parameters.values()
    ]
    assert {p.kind for p in typed} == {inspect.Parameter.KEYWORD_ONLY}
    assert BY_NAME[name].return_annotation is composer.Backend


def test_a_known_name_with_another_option_makes_nothing_that_a_sampler_takes():
    """As a type checker has it; run, it raises."""
    assert REFUSED.parameters["name"].annotation == loading.Known
    assert REFUSED.return_annotation is loading.NoSuchOption
    assert ANY.parameters["name"].annotation is str
    assert ANY.return_annotation is composer.Backend
    with pytest.raises(TypeError, match="dtyp"):
        composer.load_backend("mnist", dtyp="float16")


def test_a_device_or_dtype_is_torchs_own_or_its_name():
    parameters = [p for signature in TYPED for p in signature.parameters.values()]
    assert {p.annotation for p in parameters if p.name == "device"} == {Device}
    assert {p.annotation for p in parameters if p.name == "dtype"} == {DType}
