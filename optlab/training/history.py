"""The history of a run: a table whose rows are what was recorded after a step."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optlab.errors import nearest

Value = int | float


class History:
    """Rows of figures by name, one for a step at which something was recorded.

    Attributes:
        rows: in the order of steps; each has ``"step"``.  Only the last one may change.

    >>> history = History()
    >>> for step, loss in enumerate((2.0, 1.0), 1):
    ...     row = history.add(step, {"loss": loss})
    >>> history.add(2, {"test_loss": 1.5})
    {'step': 2, 'loss': 1.0, 'test_loss': 1.5}
    >>> history.column("loss"), history.column("step", where="test_loss")
    ([2.0, 1.0], [2])
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Value]] = []
        self._text = ""

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, step: int, figures: Mapping[str, Value]) -> dict[str, Value]:
        """Add figures to the row of a step, which is the last or a new one; the row."""
        if not self.rows or self.rows[-1]["step"] != step:
            self.rows.append({"step": step})
        self.rows[-1].update(figures)
        return self.rows[-1]

    def columns(self) -> list[str]:
        """The names of all figures, in the order in which they came."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def column(self, name: str, where: str | None = None) -> list[Value]:
        """A figure in all rows that have it.

        Args:
            name: of the figure.
            where: only in rows that have this one too, such as for the steps of a curve.

        Raises:
            ValueError: no row has such a figure.
        """
        for wanted in (name, where or name):
            if wanted not in self.columns():
                raise ValueError(f"no column {wanted!r}: {nearest(wanted, self.columns())}")
        return [row[name] for row in self.rows if name in row and (where or name) in row]

    def write(self, path: Path | str) -> None:
        """Write the table, as CSV or as JSON, a line for each row.

        Args:
            path: ends in ``.csv`` or ``.jsonl``.

        Raises:
            ValueError: it does not.
        """
        path = Path(path)
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in self.rows), "utf-8")
        elif path.suffix == ".csv":
            with path.open("w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, self.columns(), lineterminator="\n")
                table.writeheader()
                table.writerows(self.rows)
        else:
            raise ValueError(f"path must end in .csv or .jsonl, got {str(path)!r}")

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: a line for each row, of which only new ones are written again."""
        done = self._text.count("\n")
        self._text += "".join(json.dumps(row) + "\n" for row in self.rows[done:-1])
        return {"rows": self._text + "".join(map(json.dumps, self.rows[-1:]))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint."""
        self.rows = [json.loads(line) for line in state_dict["rows"].splitlines()]
        self._text = ""
