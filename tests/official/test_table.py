"""Every feature of the table is shown for every SDK, or says why not."""

import importlib
from pathlib import Path

from tests.official.features import FEATURES, SDKS, blanks


def test_no_cell_is_blank() -> None:
    for path in Path(__file__).parent.glob("test_*.py"):
        importlib.import_module(f"tests.official.{path.stem}")

    assert {sdk: blanks(sdk) for sdk in SDKS} == {sdk: [] for sdk in SDKS}


def test_what_is_not_shown_says_why() -> None:
    cells = {(key, sdk): row.cell(sdk) for key, row in FEATURES.items() for sdk in SDKS}

    assert [at for at, cell in cells.items() if cell.kind != "has" and not cell.words] == []
