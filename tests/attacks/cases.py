"""What the test of each attack says of it: short settings, and the states that they give.

``tests/attacks/kinds/test_NAME.py`` holds ``SMALL``, ``STATES`` and ``START``, so that one more
attack has its file and its test, and no list to be entered in.
"""

from importlib import import_module

from wagle.attacks.table import ATTACKS

CASES = {name: import_module(f"tests.attacks.kinds.test_{name}") for name in ATTACKS}
SMALL = {name: case.SMALL for name, case in CASES.items()}
