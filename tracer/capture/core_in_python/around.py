"""A function and two callbacks in, the same function called between the two out."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from tracer.capture.core_in_python.unseen import as_callers, unseen, without_ours

Before = Callable[[tuple[Any, ...], Any], Any]
After = Callable[[Any, Any, BaseException | None], Any]


def _tell(after: After, token: Any, result: Any, error: BaseException | None) -> None:
    try:
        after(token, result, error)
    except Exception:  # of our own: the user's call is what counts
        return
    except BaseException:
        if error is None:
            raise


class Between:
    """Call a function between `before(args, kwargs)` and `after(token, result, exception)`.

    The callbacks guard themselves; should one raise all the same, it is not seen, unless it is the
    user's Ctrl-C.
    """

    def __init__(self, function: Any, before: Before, after: After) -> None:
        self.__dict__.update(__wrapped__=function, _before=before, _after=after)

    @unseen
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        own = self.__dict__  # all in one frame: there is one in each call that is within another
        failed = False
        try:
            token = own["_before"](args, kwargs or None)
        except Exception:
            failed = True
        try:
            result = as_callers(own["__wrapped__"])(*args, **kwargs)
        except BaseException as error:
            error.__traceback__ = without_ours(error.__traceback__)
            if not failed:
                _tell(own["_after"], token, None, error)
            raise
        if not failed:
            _tell(own["_after"], token, result, None)
        return result


class Around(Between):
    """Such a call; whatever else is asked of it is the function's."""

    def __init__(self, function: Any, before: Before, after: After) -> None:
        super().__init__(function, before, after)
        names = ("__doc__", "__module__")
        self.__dict__.update({name: getattr(function, name, None) for name in names})

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__wrapped__, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.__wrapped__, name)
