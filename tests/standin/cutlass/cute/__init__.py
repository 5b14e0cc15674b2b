"""Compiling is counted by whoever wraps `compile`; here it is free, and a kernel is its function."""


def compile(function, *_, **__):  # noqa: A001 - the DSL's name for it
    return function


def jit(function):
    return function
