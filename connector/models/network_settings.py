"""Which settings of a network of timm or transformers are used: plain values within limits.

A description of a network comes from outside. A setting can name a file, an address, code, another library or a place
for tensors, and a size can take any memory or time. So only numbers, booleans, short texts that are no path, and lists
of these are passed on, under names that are none of the loading of a network.
"""

from __future__ import annotations

import re
from typing import Any

from semcut.indexes.errors import CheckpointError, shown

_LOADING = re.compile(
    r"_|pretrained|backbone|use_timm|use_pretrained|auto_map|quantization|id2label|label2id|num_(labels|classes)$"
    r"|(torch_)?dtype$|device|name_or_path|model_name$|checkpoint_path$|cache_dir$|scriptable$|transformers_weights$"
    r"|exportable$|features_only$|use_kernels$|(.*_)?implementation$"
)
"""Names of settings that load something, say where or as what, or repeat what stands elsewhere."""
_LAYERS = re.compile(r"(.*_)?(layers|depths?|blocks|repeats)$")
"""Names of settings that count layers."""
_SIDES = (
    (re.compile(r".*(window|resolution)(?!.*ind)"), 64),
    (re.compile(r"(.*_)?(image|img|input)_?(sizes?|sides?)$"), 1024),
)
"""Names of settings that are sides of windows and images, and the longest; some networks loop over pairs of points."""
_MOST, _MOST_LAYERS, _MOST_VALUES, _MOST_TEXT = 65_536, 256, 1_000, 100


def kept_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that describe the shape of a network; values of other kinds are left out.

    Raises:
        CheckpointError: a number or a list is larger than any network needs.
    """
    kept = {name: value for name, value in settings.items() if _is_used(name) and _is_plain(value)}
    _check_limits(kept)
    return kept


def used_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what `kept_settings` returns, for a stored description, which has no settings of other kinds.

    Raises:
        CheckpointError: as there, or a setting is of another kind.
    """
    for name, value in settings.items():
        if _is_used(name) and not _is_plain(value):
            raise CheckpointError(
                f"the setting {shown(name)} of the network is {shown(value)}, expected a number, a short text that is "
                "no path, or a list of these: adopt the network again"
            )
    return kept_settings(settings)


def _is_used(name: str) -> bool:
    return len(name) <= _MOST_TEXT and _LOADING.match(name) is None


def _is_plain(value: Any) -> bool:
    return all(map(_is_single, value)) if isinstance(value, list | tuple) else _is_single(value)


def _is_single(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MOST_TEXT and not any(sign in value for sign in "/\\:")
    return value is None or isinstance(value, bool | int | float)


def _check_limits(settings: dict[str, Any]) -> None:
    if len(settings) > _MOST_VALUES:
        raise CheckpointError(f"the network has {len(settings):,} settings, expected at most {_MOST_VALUES:,}")
    for name, value in settings.items():
        values = value if isinstance(value, list | tuple) else [value]
        if len(values) > _MOST_VALUES:
            raise _beyond(name, f"a list of {len(values):,}", _MOST_VALUES)
        numbers = [one for one in values if isinstance(one, int | float)]
        if any(not abs(one) <= _MOST for one in numbers):
            raise _beyond(name, shown(value), _MOST)
        for sides, most in _SIDES:
            if sides.match(name) and any(abs(one) > most for one in numbers):
                raise _beyond(name, shown(value), most)
        if _LAYERS.match(name) and sum(map(abs, numbers)) > _MOST_LAYERS:
            raise _beyond(name, shown(value), _MOST_LAYERS)


def _beyond(name: str, found: str, most: int) -> CheckpointError:
    return CheckpointError(f"the setting {shown(name)} of the network is {found}, expected at most {most:,}")
