"""Which lines of the project a case reaches for the first time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from utils.paths import PROJECT_ROOT

_FOLDERS = tuple(str(PROJECT_ROOT / name) for name in ("models", "utils"))


class LineCoverage:
    """Counts lines of ``models`` and ``utils`` that have not run before.

    From Python 3.12 on the interpreter reports each line once. Before, every call is traced until all lines of its
    function have been seen, which costs a multiple of the time.

    Attributes:
        lines: number of lines seen so far.
    """

    def __init__(self) -> None:
        self.lines = 0
        self._unseen: dict[CodeType, set[int]] = {}  # empty for code that is not the project's, or all seen

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count what runs inside."""
        if hasattr(sys, "monitoring"):
            with self._monitoring(sys.monitoring):
                yield
            return
        before = sys.gettrace()
        sys.settrace(self._on_call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _lines_of(self, code: CodeType) -> set[int]:
        unseen = self._unseen.get(code)
        if unseen is None:
            ours = code.co_filename.startswith(_FOLDERS) and Path(code.co_filename).suffix == ".py"
            unseen = self._unseen[code] = {line for *_, line in code.co_lines() if line} if ours else set()
        return unseen

    def _see(self, code: CodeType, line: int) -> None:
        unseen = self._lines_of(code)
        if line in unseen:
            unseen.discard(line)
            self.lines += 1

    def _on_call(self, frame: FrameType, event: str, argument: Any) -> Callable | None:
        return self._on_line if self._lines_of(frame.f_code) else None

    def _on_line(self, frame: FrameType, event: str, argument: Any) -> Callable:
        if event == "line":
            self._see(frame.f_code, frame.f_lineno)
        return self._on_line

    @contextmanager
    def _monitoring(self, tool: Any) -> Iterator[None]:
        def on_line(code: CodeType, line: int) -> Any:
            self._see(code, line)
            return tool.DISABLE

        tool.use_tool_id(tool.COVERAGE_ID, "fuzz")
        tool.register_callback(tool.COVERAGE_ID, tool.events.LINE, on_line)
        tool.set_events(tool.COVERAGE_ID, tool.events.LINE)
        try:
            yield
        finally:
            tool.set_events(tool.COVERAGE_ID, 0)
            tool.free_tool_id(tool.COVERAGE_ID)
