"""The cohorts of the configuration: their sheets, and the files that each recording is read from."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from remit import config as configuration
from remit import naming
from remit.errors import RemitError
from remit.recordings.cohort import Links, SheetRow, resolve
from remit.recordings.registry import companions
from remit.recordings.sidecars import sidecar_files, sidecar_names
from remit.recordings.source import root_of, rows_of


class Recordings:
    """The checked configuration, and what it is read from."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.config = configuration.validate(values)
        self._rows: dict[str, dict[str, SheetRow]] = {}
        self._sources: dict[tuple[str, str], str] = {}
        self._checks: dict[str, Links] = {}
        self._sidecar_names = cache(sidecar_names)

    def rows(self, cohort: str) -> list[SheetRow]:
        """The cohort sheet: simulated, read or scanned."""
        if cohort not in self._rows:
            self._rows[cohort] = {row.recording: row for row in self._read_rows(cohort)}
        return list(self._rows[cohort].values())

    def _read_rows(self, name: str) -> list[SheetRow]:
        cohort = self.cohort(name)
        rows, _ = rows_of(name, cohort)
        for path in [*(self.source(name, row) for row in rows), *self.sheet_source(name)]:
            if "{" in path or "}" in path:
                raise RemitError(
                    f"cohort '{name}': path {path} has a brace in it, which Snakemake takes for a "
                    "wildcard; expected a path without '{' and '}'; rename it."
                )
        if cohort.simulate is not None:
            return rows
        missing = [row for row in rows if not Path(self.source(name, row)).exists()]
        if missing and not Path(self.windows(name, missing[0].recording)).exists():
            print(
                f"remit: recording '{missing[0].recording}' of cohort '{name}': file "
                f"{self.source(name, missing[0])} not found ({len(missing)} of {len(rows)} missing); "
                f"expected it where the cohort sheet says; correct the sheet or cohorts.{name}.root.",
                file=sys.stderr,
            )
        return rows

    def cohort(self, name: str) -> configuration.Cohort:
        """A configured cohort; raises :class:`RemitError` for an unknown one."""
        if name not in self.config.cohorts:
            raise RemitError(
                f"cohort '{name}' is not in the configuration; expected one of "
                f"{', '.join(self.config.cohorts)}."
            )
        return self.config.cohorts[name]

    def row(self, cohort: str, recording: str) -> SheetRow:
        """The sheet's row of a recording; raises :class:`RemitError` for an unknown one."""
        if cohort not in self._rows:
            self.rows(cohort)
        if recording not in self._rows[cohort]:
            raise RemitError(
                f"recording '{recording}' is not in the sheet of cohort '{cohort}'; expected one of its "
                f"{len(self._rows[cohort])} recordings; check the name."
            )
        return self._rows[cohort][recording]

    def source(self, cohort: str, row: SheetRow) -> str:
        """The path of a recording's file, relative to the working directory or absolute."""
        if (cohort, row.recording) not in self._sources:  # four times asked for, of each recording
            path = resolve(row, root_of(self.cohort(cohort)))
            if (links := self._links(cohort)) is not None:
                links.check(path)
            self._sources[cohort, row.recording] = str(path)
        return self._sources[cohort, row.recording]

    def _links(self, cohort: str) -> Links | None:
        """What checks the links of a cohort's files; None where remit makes them itself."""
        settings = self.cohort(cohort)
        root = root_of(settings)
        if root is not None and cohort not in self._checks:
            self._checks[cohort] = Links(cohort, root, settings.follow_links_to)
        return self._checks.get(cohort)

    def beside(self, cohort: str, row: SheetRow) -> list[str]:
        """What else a recording is read from: its further files and its BIDS sidecars."""
        if self.cohort(cohort).simulate is not None:
            return []
        path = Path(self.source(cohort, row))
        if not path.exists():
            return []
        found = [*companions(path), *sidecar_files(path, self._sidecar_names)]
        if (links := self._links(cohort)) is not None:
            for file in found:
                links.check(file)
        return [str(file) for file in found if file.exists()]

    def sheet_source(self, cohort: str) -> list[str]:
        """The file a cohort sheet is made from, when it is one that exists."""
        source = self.cohort(cohort)
        if source.sheet is not None:
            return [source.sheet]
        if source.scan is not None:
            root = Path(source.scan.root)
            if root.is_file():
                return [str(root)]
            listing = root / "participants.tsv"
            return [str(listing)] if listing.exists() else []
        return []

    def windows(self, cohort: str, recording: str) -> str:
        """The windows file of a recording."""
        return naming.path("windows", cohort=cohort, recording=recording)
