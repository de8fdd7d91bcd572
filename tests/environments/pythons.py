"""The Pythons of this machine that programs can run under."""

from windrow.environments.sandbox import interpreter
from windrow.environments.sandbox.interpreter import Interpreter


def every_python() -> list[Interpreter]:
    """One interpreter a minor version, Windrow's own among them."""
    found = {interpreter.own().version[:2]: interpreter.own()}
    for version in (interpreter.NETWORK_VERSION, *interpreter.LATER_VERSIONS):
        for path in interpreter.installed(version):
            python = interpreter.ask(path)
            if python is not None and python.version[:2] == version:
                found.setdefault(version, python)
                break
    return [found[version] for version in sorted(found)]


EVERY_PYTHON = every_python()
