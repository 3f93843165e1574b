"""pipeline/execution/interrupts.py: Ctrl-C and SIGTERM end a block, whatever a library makes of them."""

import signal
import threading

import pytest

from pipeline.execution.interrupts import interruptible, interrupts_blocked


def send(number=signal.SIGINT):
    signal.pthread_kill(threading.main_thread().ident, number)


def swallows():
    try:
        send()
    except KeyboardInterrupt:
        return


def turns_into_an_error():
    try:
        send()
    except KeyboardInterrupt:
        raise ImportError("cut short") from None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_end_the_block_and_the_handlers_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        send(number)
    assert signal.getsignal(number) is before


def test_an_interrupt_that_a_library_swallows_ends_the_block_at_its_end():
    with pytest.raises(KeyboardInterrupt), interruptible():
        swallows()


def test_an_interrupt_that_a_library_turns_into_an_error_is_one_still():
    with pytest.raises(KeyboardInterrupt) as raised, interruptible():
        turns_into_an_error()
    assert isinstance(raised.value.__cause__, ImportError)


def test_an_error_without_an_interrupt_goes_through():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError, match="not installed"), interruptible():
        raise ImportError("not installed")
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def default_handler():
    """Let SIGINT raise KeyboardInterrupt: a shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_a_blocked_interrupt_arrives_after_the_block():
    done = []

    def work():
        with interrupts_blocked():
            signal.raise_signal(signal.SIGINT)  # to this thread: a library's thread does not block it
            done.append("block")
        done.append("after")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["block"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_interrupts_that_the_caller_has_blocked_stay_blocked():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with interrupts_blocked():
            pass
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
