"""Where each key of a TOML or JSON text stands, which their readers do not say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Path = tuple[str | int, ...]
_TOKEN = re.compile(
    r"(?P<skip>[ \t\r]+|\#[^\n]*)|(?P<newline>\n)"
    r'|(?P<string>"""(?:\\.|[^\\])*?"""|\'\'\'.*?\'\'\'|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')'
    r"|(?P<mark>[\[\]{}=,:])|(?P<word>[^\s\[\]{}=,:\"'#]+)",
    re.DOTALL,
)


def lines_of(text: str, json: bool) -> dict[Path, int]:
    """{path of a key: its line, from 1} of a text that its reader has read."""
    scan = _Scan(_tokens(text))
    if json:
        scan.value(())
    else:
        scan.document()
    return scan.lines


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, line = [], 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind != "skip":
            found.append((kind, match.group(), line))
        line += match.group().count("\n")
    return found


@dataclass
class _Scan:
    tokens: list[tuple[str, str, int]]
    place: int = 0
    lines: dict[Path, int] = field(default_factory=dict)

    def document(self) -> None:
        """The tables and keys of TOML."""
        table: Path = ()
        while self.place < len(self.tokens):
            if self._take("\n"):
                continue
            if self._take("["):
                table = self._header(repeated=self._take("["))
            else:
                self._pair(table)

    def value(self, path: Path) -> None:
        """One value, and what is in it."""
        self._note(path)
        if self._take("{"):
            while not self._take("}") and self._more():
                if not (self._take(",") or self._take("\n")):
                    self._pair(path)
        elif self._take("["):
            index = 0
            while not self._take("]") and self._more():
                if self._take(","):
                    index += 1
                elif not self._take("\n"):
                    self.value((*path, index))
        else:
            while self._more() and self._text() not in ("\n", ",", "]", "}"):
                self.place += 1

    def _header(self, repeated: bool) -> Path:
        path = self._keys(())
        if repeated:
            path = (*path, sum((*path, k) in self.lines for k in range(len(self.tokens))))
        self._note(path)
        while self._take("]"):
            pass
        return path

    def _pair(self, table: Path) -> None:
        begin = self.place
        path = self._keys(table)
        if self._take("=") or self._take(":"):
            while self._take("\n"):  # JSON's value may stand on the next line
                pass
            self.value(path)
        self.place += self.place == begin  # what no reader takes is passed over

    def _keys(self, table: Path) -> Path:
        path = table
        while self._more() and self.tokens[self.place][0] in ("string", "word"):
            kind, text, _ = self.tokens[self.place]
            parts = [text[1:-1]] if kind == "string" else [p for p in text.split(".") if p]
            for part in parts:
                path = (*path, part)
                self._note(path)
            self.place += 1
        return path

    def _note(self, path: Path) -> None:
        if self._more():
            self.lines.setdefault(path, self.tokens[self.place][2])

    def _take(self, text: str) -> bool:
        found = self._more() and self._text() == text and self.tokens[self.place][0] != "string"
        self.place += found
        return found

    def _text(self) -> str:
        return self.tokens[self.place][1]

    def _more(self) -> bool:
        return self.place < len(self.tokens)
