"""Characters that show nothing, and that count as letters, marks or symbols: two names could differ by them alone.

Unicode calls them default-ignorable (DerivedCoreProperties, 17.0), but for the last one, which is a blank of Braille.
Those of the categories for control and format characters are refused or written out by their category already.
"""

from typing import Final

_RANGES: Final = (
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2065, 0x2065),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0xE0000, 0xE0FFF),
    (0x2800, 0x2800),
)
IGNORABLE: Final = frozenset(chr(one) for first, last in _RANGES for one in range(first, last + 1))
