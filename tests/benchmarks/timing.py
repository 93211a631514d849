"""How the benchmarks keep time: candidates take turns, so that a machine that is busy for a while slows all of them."""

import time
from functools import partial


def timed(action):
    """How many seconds the action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def repeated(call, times):
    """The call, so many times in a row."""

    def block():
        for _ in range(times):
            call()

    return block


def taking_turns(actions, rounds, prepare=lambda name: ()):
    """How many seconds each action took in each round, by name.

    It gets the arguments that `prepare(name)` returns before the clock starts.
    """
    seconds = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            seconds[name].append(timed(partial(action, *prepare(name))))
    return seconds
