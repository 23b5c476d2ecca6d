"""transformers without its progress bars and reports; what takes long is told as `softprompt.waits`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from functools import partial
from typing import Any

from softprompt import waits


@contextmanager
def quiet(title: str = "loading weights") -> Iterator[None]:
    """No progress bars and no reports on standard output while transformers loads.

    Args:
        title: of the wait that its bars would have shown.
    """
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    before = logging.set_tqdm_hook(lambda _, args, kwargs: _Told(title, *args, **kwargs))
    # transformers' reader of GGUF files has a bar of its own, which no switch turns off.
    reader: Any = sys.modules.get("transformers.modeling_gguf_pytorch_utils")
    own = None if reader is None else reader.tqdm
    if reader is not None:
        reader.tqdm = partial(_Told, title)
    try:
        yield
    finally:
        if reader is not None:
            reader.tqdm = own
        logging.set_tqdm_hook(before)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class _Told:
    """What transformers uses of a tqdm bar, told as a wait."""

    def __init__(self, title: str, items: Iterable[Any] = (), **options: Any) -> None:
        self._title, self._items = title, items
        self._done, self._total = 0, options.get("total") or (len(items) if isinstance(items, Sized) else 0)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            yield item
            self.update()

    def update(self, count: float | None = 1) -> None:
        """``count`` more are done."""
        self._done += int(count or 0)
        if self._total:
            waits.tell(self._title, min(self._done, self._total), self._total)

    def __enter__(self) -> _Told:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None  # descriptions and the like, which nobody sees
