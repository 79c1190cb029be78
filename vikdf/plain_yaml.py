"""params.yaml, from anyone: plain values of bounded size and depth, each key written once.

In: a YAML file. Out: its values; a ValueError names the file and what is wrong with it. Used by vikdf/params.py.
"""

from collections.abc import Hashable
from pathlib import Path

import yaml

from vikdf import files

LARGEST = 200_000  # bytes, read in two seconds: presets/demo.yaml, with a reason beside each number, has a sixth of it
MOST = 20_000  # lists and sections; what an alias names again is counted again
TAGGED = (AttributeError, LookupError, TypeError, ArithmeticError)  # what PyYAML raises at `!!timestamp x`, `!!int _`


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice: the second would win without a word."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    line = f"line {node.start_mark.line + 1}"
    seen = set()
    for key in keys:
        if not isinstance(key, Hashable):
            raise ValueError(f"{line}: a list or a section stands as a key; write a name")
        if key in seen:
            raise ValueError(f"{line}: the key `{key}` stands twice in one section; keep one")
        seen.add(key)
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read(path: Path):
    size = Path(path).stat().st_size
    if size > LARGEST:
        raise ValueError(f"{path} has {size} bytes, a params file at most {LARGEST}: name another")
    try:
        return files.bounded(yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader), MOST)
    except (yaml.YAMLError, UnicodeError, RecursionError, *TAGGED) as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None
