"""Files of PyTorch weights: .pth (zip and legacy) and .safetensors.

PyTorch and safetensors are the optional extra `convert`. A .pth file is a pickle, which
can hold programs; it is read with `torch.load(weights_only=True)`, which refuses them.
"""

import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from xdc_jax.errors import UserError
from xdc_jax.weights import layout


def read(path: str | Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads a state dict.

    Args:
        path: a .safetensors file, or anything else that `torch.save` wrote.

    Returns:
        Name -> array. Floats come as float32, whatever their precision in the file.

    Raises:
        UserError: the file is missing, damaged, or is no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a .pth or .safetensors file")
    torch = _module("torch")
    if path.suffix == ".safetensors":
        loaded = _read_safetensors(path)
    else:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(
                f"{path}: not a file of tensors alone ({_first_line(error)}). Pickles "
                "that hold other objects are not loaded, because they can run programs;"
                " save the state dict (torch.save(model.state_dict(), ...))"
            ) from error
        except (RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: cannot be read ({_first_line(error)}); expected a complete "
                ".pth file. Was its download interrupted?"
            ) from error
    state = layout.unwrap(loaded)
    if not state or not all(torch.is_tensor(value) for value in state.values()):
        raise UserError(
            f"{path}: holds {type(loaded).__name__}, expected a state dict: names and "
            "tensors"
        )
    return {str(name): _array(tensor, torch) for name, tensor in state.items()}


def _read_safetensors(path: Path) -> dict[str, Any]:
    safetensors = _module("safetensors.torch")
    try:
        return safetensors.load_file(path)
    except (
        Exception
    ) as error:  # SafetensorError is made in Rust, without a public base.
        raise UserError(
            f"{path}: cannot be read ({_first_line(error)}); expected a complete "
            ".safetensors file"
        ) from error


def _array(tensor: Any, torch: ModuleType) -> Shaped[np.ndarray, "..."]:
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.float32)
    return tensor.numpy()


def write(path: str | Path, state: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    """Writes a state dict, as .safetensors if the name ends so, else as .pth.

    Raises:
        UserError: there is something of that name.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path}: exists already; choose another --out or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    torch = _module("torch")
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in state.items()}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if path.suffix == ".safetensors":
            _module("safetensors.torch").save_file(tensors, temporary)
        else:
            torch.save(tensors, temporary)
        temporary.replace(path)
    except (RuntimeError, OSError) as error:  # RuntimeError: of PyTorch, on a full disk
        raise OSError(f"{path}: cannot be written ({_first_line(error)})") from error
    finally:
        temporary.unlink(missing_ok=True)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"{name.split('.')[0]} is not installed; weights of PyTorch need the extra "
            "`convert`: pip install 'xdc-jax[convert]'"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
