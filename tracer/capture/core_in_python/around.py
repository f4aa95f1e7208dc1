"""A function and two callbacks in, the same function called between the two out."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from tracer.capture.core_in_python.unseen import call, unseen, without_ours

Before = Callable[[tuple[Any, ...], Any], Any]
After = Callable[[Any, Any, BaseException | None], Any]


@unseen
def call_around(
    function: Any, before: Before, after: After, args: tuple[Any, ...], kwargs: Any
) -> Any:
    """Call a function between `before(args, kwargs)` and `after(token, result, exception)`.

    The callbacks guard themselves; should one raise all the same, it is not seen, unless it is the
    user's Ctrl-C.
    """
    failed = False
    try:
        token = before(args, kwargs or None)
    except Exception:
        failed = True
    if failed:  # called out here, what it raises has not our failure for its context
        return call(function, args, kwargs)
    try:
        result = call(function, args, kwargs)
    except BaseException as error:
        error.__traceback__ = without_ours(error.__traceback__)
        _tell(after, token, None, error)
        raise
    _tell(after, token, result, None)
    return result


def _tell(after: After, token: Any, result: Any, error: BaseException | None) -> None:
    try:
        after(token, result, error)
    except Exception:  # of our own: the user's call is what counts
        return
    except BaseException:
        if error is None:
            raise


class Around:
    """Call a function between two callbacks; whatever else is asked of it is the function's."""

    __wrapped__: Any
    _before: Before
    _after: After

    def __init__(self, function: Any, before: Before, after: After) -> None:
        own = {"__wrapped__": function, "_before": before, "_after": after}
        own |= {name: getattr(function, name, None) for name in ("__doc__", "__module__")}
        self.__dict__.update(own)

    @unseen
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return call_around(self.__wrapped__, self._before, self._after, args, kwargs)
        except BaseException as error:
            error.__traceback__ = without_ours(error.__traceback__)
            raise

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__wrapped__, name)
