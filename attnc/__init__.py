"""attnc: an attention compiler. From a pattern's text to one readable PyTorch module.

    attention = attnc.load("longformer.attn", window=256)
    out = attention(q, k, v, is_global=hubs)

The names below are fetched on first use, so that importing the package costs nothing: neither torch nor the
solver is loaded before something is compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import attnc.nn as nn
    from attnc.decorator import attention_pattern
    from attnc.diagnostics import AttncError
    from attnc.masks.mask_mod import from_mask_mod
    from attnc.masks.recognition import from_mask
    from attnc.report import Report
    from attnc.runtime import check, compile, load, mask

__version__ = "0.1.0"

__all__ = [
    "AttncError",
    "Report",
    "__version__",
    "attention_pattern",
    "check",
    "compile",
    "from_mask",
    "from_mask_mod",
    "load",
    "mask",
    "nn",
]

_HOMES = {
    "AttncError": "attnc.diagnostics",
    "Report": "attnc.report",
    "attention_pattern": "attnc.decorator",
    "check": "attnc.runtime",
    "compile": "attnc.runtime",
    "from_mask": "attnc.masks.recognition",
    "from_mask_mod": "attnc.masks.mask_mod",
    "load": "attnc.runtime",
    "mask": "attnc.runtime",
}


# Modules that are asked for as `attnc.NAME`.
_MODULES = {"nn"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None and name not in _MODULES:
        raise AttributeError(f"module 'attnc' has no attribute {name!r}")
    from importlib import import_module

    value = import_module(f"attnc.{name}") if home is None else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
