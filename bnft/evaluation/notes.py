"""The warnings of attacks, collected for the result instead of printed."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LOGGERS = ("auto-attack", "bnft.evaluation")


@contextmanager
def recorded(messages: list[str] | None = None) -> Iterator[list[str]]:
    """Collect the warnings of AutoAttack and of bnft's own attacks in this block in `messages`, each once."""
    messages = [] if messages is None else messages
    with ExitStack() as stack:
        for name in LOGGERS:
            stack.enter_context(_collected(logging.getLogger(name), messages))
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        yield messages
    official = [str(warning.message) for warning in caught if "pyautoattack" in (warning.filename or "")]
    messages[:] = dict.fromkeys([*messages, *official])


@contextmanager
def _collected(logger: logging.Logger, messages: list[str]) -> Iterator[None]:
    handler = _Collector(messages)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in self.messages:
            self.messages.append(record.getMessage())
