"""Cross-Modal Deep Clustering (XDC) of video and audio in JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xdc_jax.encoder import Encoder, load_encoder

__all__ = ["Encoder", "load_encoder"]


def __getattr__(name: str) -> Any:
    # On first use: data workers and `xdc --help` import this package without JAX.
    if name in __all__:
        from xdc_jax import encoder

        return getattr(encoder, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
