from __future__ import annotations

import signal
import threading

import pytest

from dualtune_edge.export.work.signals import Signals

SIGNALS = pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)], ids=["SIGINT", "SIGTERM"]
)


@SIGNALS
def test_a_signal_raises_at_once(number: signal.Signals, error: type[BaseException]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(error), Signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


@SIGNALS
def test_while_signals_are_held_the_block_is_done_whole(number: signal.Signals, error: type[BaseException]) -> None:
    done: list[str] = []

    def block(signals: Signals) -> None:
        with signals.held():
            signal.raise_signal(number)
            signal.raise_signal(number)
            done.append("inside")
        done.append("behind")

    with Signals() as signals:
        with pytest.raises(error):
            block(signals)
        with signals.held():
            pass  # it was raised once
    assert done == ["inside"]


def test_another_thread_leaves_the_handlers_alone() -> None:
    handlers = []

    def use() -> None:
        with Signals() as signals, signals.held():
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert handlers == [before]
