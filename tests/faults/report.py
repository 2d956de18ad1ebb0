"""What a scenario found: a plain table, remarks, and the reasons why it failed."""


class Report:
    def __init__(self, name):
        self.name = name
        self.rows, self.notes, self.reasons, self.skipped = [], [], [], []

    def row(self, **cells):
        """Adds a line; columns appear in the order in which they are first named."""
        self.rows.append(cells)

    def note(self, text):
        self.notes.append(text)

    def check(self, holds, reason):
        if not holds:
            self.reasons.append(reason)
        return bool(holds)

    def equal(self, what, found, wanted):
        return self.check(found == wanted, f"{what}: {found}, not {wanted}")

    def skip(self, case, why):
        self.skipped.append(f"{case}: {why}")

    @property
    def ok(self):
        return not self.reasons

    def text(self):
        lines = table(self.rows)
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  skipped: {why}" for why in self.skipped]
        lines += [f"  FAILED: {reason}" for reason in self.reasons]
        return "\n".join(lines)


def table(rows):
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[shown(row.get(column, "")) for column in columns] for row in rows]
    heads = [column.replace("_", " ") for column in columns]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(columns))]
    # The first column names the case, the others are mostly numbers.
    form = lambda line: "  " + "  ".join(
        cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))
    ).rstrip()
    return [form(line) for line in ([heads, *cells] if rows else [])]


def shown(cell):
    if isinstance(cell, float):
        return f"{cell:.2f}" if cell < 100 else f"{cell:.0f}"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
