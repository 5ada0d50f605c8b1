"""diffence/_core.pyi says what the compiled module has: the same names, the same signatures, both ways."""

from __future__ import annotations

import ast
import inspect
import pathlib
import types

import pytest

import diffence
from diffence import _core

Arguments = list[tuple[str, str, object]]  # name, kind, default


def stub_tree() -> ast.Module:
    (folder, *_) = diffence.__path__
    return ast.parse((pathlib.Path(folder) / "_core.pyi").read_text(encoding="utf-8"))


def stub_arguments(function: ast.FunctionDef) -> Arguments:
    arguments = function.args
    assert not arguments.posonlyargs
    assert arguments.vararg is None
    assert arguments.kwarg is None
    missing: list[ast.expr | None] = [None] * (len(arguments.args) - len(arguments.defaults))
    plain = zip(arguments.args, [*missing, *arguments.defaults], strict=True)
    keyword = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found = [(argument.arg, "POSITIONAL_OR_KEYWORD", default) for argument, default in plain]
    found += [(argument.arg, "KEYWORD_ONLY", default) for argument, default in keyword]
    return [
        (name, kind, inspect.Parameter.empty if default is None else ast.literal_eval(default))
        for name, kind, default in found
        if name not in ("self", "cls")
    ]


def module_arguments(function: object) -> Arguments:
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return [(p.name, p.kind.name, p.default) for p in parameters if p.name != "self"]


def compare_class(node: ast.ClassDef, cls: type) -> None:
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    decorators = {name: [ast.unparse(one) for one in item.decorator_list] for name, item in methods.items()}
    properties = {name for name, used in decorators.items() if used == ["property"]}
    assert stub_arguments(methods.pop("__new__")) == module_arguments(cls)
    public = {name: value for name, value in vars(cls).items() if not name.startswith("_")}
    assert {name for name, value in public.items() if isinstance(value, types.GetSetDescriptorType)} == properties
    assert set(public) == set(methods)
    for name in set(methods) - properties:
        assert stub_arguments(methods[name]) == module_arguments(getattr(cls, name)), f"{node.name}.{name}"
        assert (decorators[name] == ["classmethod"]) == isinstance(public[name], types.ClassMethodDescriptorType)
    for name, value in {**public, "the class": cls}.items():
        assert value.__doc__, f"{node.name}: no docstring on {name}"


def test_every_name_of_the_stub_and_of_the_module() -> None:
    in_stub: set[str] = set()
    for node in stub_tree().body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            in_stub.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            assert isinstance(node.target, ast.Name)
            in_stub.add(node.target.id)
    assert in_stub == {name for name in vars(_core) if not name.startswith("_")}


FUNCTIONS = [node for node in stub_tree().body if isinstance(node, ast.FunctionDef)]
CLASSES = [node for node in stub_tree().body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("node", FUNCTIONS, ids=lambda node: node.name)
def test_function_signatures(node: ast.FunctionDef) -> None:
    function = getattr(_core, node.name)
    assert stub_arguments(node) == module_arguments(function)
    assert function.__doc__


@pytest.mark.parametrize("node", CLASSES, ids=lambda node: node.name)
def test_class_signatures(node: ast.ClassDef) -> None:
    compare_class(node, getattr(_core, node.name))


def test_constants_are_integers_and_types_are_closed() -> None:
    assert {_core.INSIDE, _core.NEAREST, _core.FALLBACK} == {0, 1, 2}
    assert sorted(_core.OPS.values()) == list(range(len(_core.OPS)))
    for node in CLASSES:
        cls = getattr(_core, node.name)
        with pytest.raises(TypeError, match="not an acceptable base type"):
            type("Sub", (cls,), {})
        with pytest.raises(TypeError, match="immutable"):
            cls.extra = 1
        assert cls.__module__ == "diffence._core"
