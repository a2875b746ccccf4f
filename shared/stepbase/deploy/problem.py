"""What stands in the way of a deploy, with its remedy."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        where: The file, variable or program it is about.
        what: What is wrong.
        remedy: What to do about it.
        is_fatal: Whether nothing can be deployed like this; else it is only said.
    """

    where: str
    what: str
    remedy: str
    is_fatal: bool = True

    def line(self) -> str:
        """Return it as it is printed."""
        kind = "problem" if self.is_fatal else "note"
        return f"{kind:<8} {self.where}: {self.what}\n         → {self.remedy}"

    def as_json(self) -> dict[str, object]:
        """Return it as `--json` has it."""
        return asdict(self)
