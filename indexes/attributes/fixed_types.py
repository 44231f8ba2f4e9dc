"""The types of the attributes of an index by name: a dictionary that cannot be changed, as they are fixed.

It is a `dict` all the same, so that it is equal to one, and `json`, `pickle`, `copy` and pydantic take it as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from semcut.indexes.attributes.attribute_types import AttributeType
from semcut.indexes.errors import InvalidParameterError


class FixedTypes(dict[str, AttributeType]):
    """The type of each attribute by its name.

    Args:
        types: the types, checked by the configuration.

    Raises:
        InvalidParameterError: by every method that changes a dictionary.
    """

    def __init__(self, types: Mapping[str, AttributeType]) -> None:
        super().__init__(types)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidParameterError(
            "the attributes of a configuration cannot be changed: make another IndexConfig, and a new index with it"
        )

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FixedTypes], tuple[dict[str, AttributeType]]]:
        """Return how `pickle` and `copy` make the same again, without changing an empty one."""
        return FixedTypes, (dict(self),)
