"""Python values as JSON that keeps their types, for the processes inside a sandbox.

Self-contained: its source is put before the runner's, and before the program that a remote sandbox runs. The owner
reads what comes back with :mod:`reward_fns.sandbox.values`, which trusts nothing.

``null``, booleans, strings, small integers and lists stand for themselves; then there are ``{"i": hex}`` big integer,
``{"f": text}`` float, ``{"t": [...]}`` tuple, ``{"d": [[key, value], ...]}`` dict, ``{"s": [...]}`` set,
``{"z": [...]}`` frozenset, ``{"b": hex}`` bytes, ``{"c": [re, im]}`` complex, ``{"F": [hex, hex]}`` fraction,
``{"D": text}`` decimal, ``{"q": [...]}`` deque, ``{"r": [start, stop, step]}`` range, ``{"n": [...]}`` iterator,
``{"k": [...]}``, ``{"v": [...]}``, ``{"m": [...]}`` the keys, values and items of a dict, and ``{"o": text}`` for
anything else, which equals nothing.
"""

import collections
import itertools

MOST_ITEMS = 20_000  # taken from an iterator
_ITERATORS = {"generator", "map", "filter", "zip", "enumerate", "reversed", "list_reverseiterator", "range_iterator",
              "list_iterator", "tuple_iterator", "set_iterator", "str_iterator", "str_ascii_iterator",
              "dict_keyiterator", "dict_valueiterator", "dict_itemiterator", "callable_iterator"}  # fmt: skip
_VIEWS = {"dict_keys": "k", "dict_values": "v", "dict_items": "m", "odict_keys": "k", "odict_values": "v",
          "odict_items": "m"}  # fmt: skip


def encode(value, depth=0):
    """The tagged JSON of a value."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if depth > 60:
        return {"o": "nested too deeply"}
    if isinstance(value, int):
        value = int.__add__(value, 0)
        return value if -(2**53) < value < 2**53 else {"i": hex(value)}
    if isinstance(value, float):
        return {"f": float.__repr__(value)}
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, tuple):
        return {"t": _items(tuple.__iter__(value), depth)}
    if isinstance(value, list):
        return _items(list.__iter__(value), depth)
    if isinstance(value, dict):
        return {"d": [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in dict.items(value)]}
    if isinstance(value, (set, frozenset)):
        return {"z" if isinstance(value, frozenset) else "s": _items(value, depth)}
    if isinstance(value, (bytes, bytearray)):
        return {"b": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [repr(value.real), repr(value.imag)]}
    if isinstance(value, collections.deque):
        return {"q": _items(value, depth)}
    if kind is range:
        return {"r": [encode(value.start), encode(value.stop), encode(value.step)]}
    return _encode_other(value, kind, depth)


def _items(values, depth):
    return [encode(item, depth + 1) for item in values]


def _encode_other(value, kind, depth):
    if kind.__name__ in _VIEWS and kind.__module__ in ("builtins", "collections"):
        items = [list(item) for item in value] if _VIEWS[kind.__name__] == "m" else value
        return {_VIEWS[kind.__name__]: _items(items, depth)}
    if kind.__name__ in _ITERATORS or kind.__module__ == "itertools":
        return {"n": _items(itertools.islice(value, MOST_ITEMS), depth)}
    if kind.__module__ == "fractions" and kind.__name__ == "Fraction":
        return {"F": [hex(value.numerator), hex(value.denominator)]}
    if kind.__module__ == "decimal" and kind.__name__ == "Decimal":
        return {"D": str(value)}
    if kind.__module__ == "numpy" and getattr(value, "ndim", 1) == 0:
        return encode(value.item(), depth + 1)
    return {"o": f"{kind.__name__} object"}


class Opaque:
    """A value that has no counterpart outside its own process; a test that looks at it fails."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return f"<{self.text}>"

    def _refuse(self, *_):
        raise TypeError(f"the function returned a {self.text}, which a test cannot look at")

    __bool__ = __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __len__ = __iter__ = __contains__ = _refuse
    __getitem__ = __call__ = __hash__ = _refuse


def decode(value):
    """The value of tagged JSON that the owner has checked."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, inner),) = value.items()
    if tag == "o":
        return Opaque(inner)
    if tag == "i":
        return int(inner, 16)
    if tag == "f":
        return float(inner)
    if tag == "b":
        return bytes.fromhex(inner)
    if tag == "c":
        return complex(float(inner[0]), float(inner[1]))
    if tag == "F":
        from fractions import Fraction  # rarely needed, and slow to import

        return Fraction(int(inner[0], 16), int(inner[1], 16))
    if tag == "D":
        from decimal import Decimal

        return Decimal(inner)
    items = [decode(item) for item in inner]
    if tag == "t":
        return tuple(items)
    if tag == "d":
        return dict(items)
    return _decode_container(tag, items)


def _decode_container(tag, items):
    if tag == "s":
        return set(items)
    if tag == "z":
        return frozenset(items)
    if tag == "q":
        return collections.deque(items)
    if tag == "r":
        return range(*items)
    if tag == "n":
        return iter(items)
    if tag == "k":
        return dict.fromkeys(items).keys()
    if tag == "v":
        return dict(enumerate(items)).values()
    return dict(items).items()
