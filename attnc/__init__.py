"""attnc: an attention compiler. From a pattern's text to one readable PyTorch module.

    attention = attnc.load("longformer.attn", window=256)
    out = attention(q, k, v, is_global=hubs)

The names below are fetched on first use, so that importing the package costs nothing: neither torch nor the
solver is loaded before something is compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attnc.decorator import attention_pattern
    from attnc.diagnostics import AttncError
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
    "load",
    "mask",
]

_HOMES = {
    "AttncError": "attnc.diagnostics",
    "Report": "attnc.report",
    "attention_pattern": "attnc.decorator",
    "check": "attnc.runtime",
    "compile": "attnc.runtime",
    "load": "attnc.runtime",
    "mask": "attnc.runtime",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'attnc' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
