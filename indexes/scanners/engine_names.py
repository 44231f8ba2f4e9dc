"""The names that users give to scanners (`engine=`, SEMCUT_ENGINE), and which scanner is chosen. Imports no library.

"compiled"   CPU, numba kernels: several times faster than "faiss"; needs numba (extra `fast`), compiled once
"faiss"      CPU, FAISS's inverted lists
"torch"      GPU, matrix products; needs torch
"flat"       GPU, FAISS's flat indexes; needs faiss-gpu
"auto"       on a GPU "torch"; on the CPU the engine that SEMCUT_ENGINE names. If the variable is not set, "compiled" if
             numba is installed, with "faiss" until the kernels are compiled; else "faiss"
"""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from typing import Literal

from semcut.indexes.errors import InvalidParameterError, MissingDependencyError, install_hint, shown
from semcut.indexes.kernels import kernel_cache

EngineName = Literal["auto", "compiled", "faiss", "torch", "flat"]

ENGINE_VARIABLE = "SEMCUT_ENGINE"
"""The environment variable with the engine that "auto" means on the CPU."""

_ENGINES = ("auto", "compiled", "faiss", "torch", "flat")
_GPU_ENGINES = ("torch", "flat")
_GPU_DEVICE = re.compile(r"cuda(:\d+)?")


def available_engines() -> tuple[str, ...]:
    """Return the names of the installed engines for the CPU, the default first."""
    return ("compiled", "faiss") if find_spec("numba") is not None else ("faiss",)


def choose_engine(engine: str, device: str = "cpu") -> str:
    """Return the name of the engine to use; "auto" only if the compiled engine is chosen and its kernels are not ready.

    With "auto", an index starts with FAISS's scanner, and `engine_switch` moves it to the compiled one later.

    Args:
        engine: the name that the user gave; "auto" means the engine that SEMCUT_ENGINE names, or the default.
        device: "cpu", "cuda:0" for one GPU, or "cuda" for all of them.

    Raises:
        InvalidParameterError: the engine or the device has an unknown name, or the engine does not run on the device.
        MissingDependencyError: a package that the engine needs is not installed.
    """
    if engine not in _ENGINES:
        raise InvalidParameterError(f"engine = {shown(engine)}, expected one of {', '.join(_ENGINES)}")
    if device != "cpu" and not (isinstance(device, str) and _GPU_DEVICE.fullmatch(device)):
        raise InvalidParameterError(f"device = {shown(device)}, expected cpu, cuda or cuda with a number, like cuda:0")
    if device != "cpu":
        if engine not in ("auto", *_GPU_ENGINES):
            raise InvalidParameterError(f"engine = {engine} is for device = cpu: on {device} use torch or flat")
        engine = "torch" if engine == "auto" else engine
    if engine == "auto":
        named = os.environ.get(ENGINE_VARIABLE)
        if not named and "compiled" in available_engines() and kernel_cache.ready_directory() is None:
            return "auto"
        engine = named or available_engines()[0]
        if engine not in _ENGINES[1:]:
            raise InvalidParameterError(
                f"{ENGINE_VARIABLE} = {shown(engine)}, expected one of {', '.join(_ENGINES[1:])}"
            )
    if engine == "torch" and find_spec("torch") is None:
        raise MissingDependencyError("torch is not installed, which the torch engine needs: pip install torch")
    if engine == "compiled" and find_spec("numba") is None:
        raise MissingDependencyError(f"numba is not installed, which the compiled engine needs: {install_hint('fast')}")
    return engine
