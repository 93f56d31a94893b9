"""Answers that took long, kept in memory up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

MOST_BYTES = 2**26
"""Largest number of bytes of the answers in one cache together."""


class AnswerCache:
    """Answers by key, of at most `most` bytes together; those that were not used for longest go first."""

    def __init__(self, most: int = MOST_BYTES):
        self.most, self.size = most, 0
        self._answers: OrderedDict[Hashable, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get_or_make(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """The answer under `key`; made, outside of the lock, where there is none."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return self._answers[key]
        answer = make()
        with self._lock:
            self.size += len(answer) - len(self._answers.pop(key, b""))
            self._answers[key] = answer
            while self.size > self.most:
                self.size -= len(self._answers.popitem(last=False)[1])
        return answer
