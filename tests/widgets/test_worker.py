"""The worker: newest wins, cancel, errors, idle, close; ordered by events, not by sleeping."""

import threading
import time

import pytest

from mrviz.errors import Cancelled
from mrviz.widgets.worker import Worker

LONG = 10.0  # seconds; only a failing test waits this long


class Log:
    """A worker and what it called back with."""

    def __init__(self):
        self.errors, self.idle = [], []
        self.idled = threading.Event()
        self.worker = Worker(self.errors.append, self._idle)

    def _idle(self, finished):
        self.idle.append(finished)
        self.idled.set()

    def blocked(self, then=lambda flag: None):
        """Submits a job that waits; returns once it runs, with its release and its flag."""
        running, release, flags = threading.Event(), threading.Event(), []

        def job(flag):
            flags.append(flag)
            running.set()
            assert release.wait(LONG)
            then(flag)

        self.worker.submit(job)
        assert running.wait(LONG)
        return release, flags[0]


@pytest.fixture
def log():
    log = Log()
    yield log
    log.worker.close()


def stop(flag):
    if flag.is_set():
        raise Cancelled("stopped")


def test_a_job_runs_in_a_thread_of_its_own_and_idle_follows(log):
    where = []
    log.worker.submit(lambda flag: where.append(threading.current_thread()))
    assert log.worker.wait(LONG)
    assert where != [] and where[0] is not threading.current_thread()
    assert (log.idle, log.errors, log.worker.busy) == ([True], [], False)


def test_the_newest_job_wins_and_the_older_sees_its_flag(log):
    release, flag = log.blocked(stop)
    ran = []
    assert not flag.is_set()
    log.worker.submit(lambda flag: ran.append(flag.is_set()))
    assert flag.is_set() and log.worker.waiting
    release.set()
    assert log.worker.wait(LONG)
    assert ran == [False]  # the newer job's own flag is not set
    assert (log.idle, log.errors) == ([True], [])


def test_an_error_of_a_cancelled_job_is_nobodys_business(log):
    def fail(flag):
        raise RuntimeError("half done")

    release, _ = log.blocked(fail)
    log.worker.submit(lambda flag: None)
    release.set()
    assert log.worker.wait(LONG)
    assert (log.errors, log.idle) == ([], [True])


def test_errors_arrive_and_the_thread_lives_on(log):
    wrong = ValueError("wrong")

    def fail(flag):
        raise wrong

    log.worker.submit(fail)
    assert log.worker.wait(LONG)
    assert (log.errors, log.idle) == ([wrong], [False])
    log.worker.submit(lambda flag: None)
    assert log.worker.wait(LONG)
    assert log.idle == [False, True]


def test_of_quick_requests_only_the_last_runs(log):
    ran = []
    started = time.monotonic()
    for k in range(5):
        log.worker.submit(lambda flag, k=k: ran.append((k, time.monotonic())), delay=0.1)
    assert log.worker.wait(LONG)
    (only,) = ran
    assert only[0] == 4 and only[1] - started >= 0.1
    assert log.idle == [True]


def test_a_request_without_delay_does_not_wait_for_one_with_delay(log):
    ran = []
    log.worker.submit(lambda flag: ran.append("slow"), delay=1000)
    log.worker.submit(lambda flag: ran.append("fast"))
    assert log.worker.wait(LONG)
    assert ran == ["fast"]


def test_cancel_sets_the_flag_and_drops_what_waits(log):
    release, flag = log.blocked(stop)
    ran = []
    log.worker.submit(lambda flag: ran.append("never"))
    log.worker.cancel()
    assert flag.is_set() and not log.worker.waiting and log.worker.busy
    release.set()
    assert log.worker.wait(LONG)
    assert (ran, log.idle, log.errors) == ([], [False], [])


def test_a_cancel_before_the_start_leaves_nothing_to_do(log):
    ran = []
    log.worker.submit(lambda flag: ran.append("never"), delay=1000)
    log.worker.cancel()
    assert log.worker.wait(LONG)
    assert ran == [] and not log.worker.busy


def test_wait_gives_up_after_its_timeout(log):
    release, _ = log.blocked()
    assert log.worker.wait(0.02) is False and log.worker.busy
    release.set()
    assert log.worker.wait(LONG) is True


def test_a_job_may_submit_the_next(log):
    ran = []
    log.worker.submit(lambda flag: log.worker.submit(lambda flag: ran.append("next")))
    assert log.worker.wait(LONG)
    assert ran == ["next"] and log.idle == [True]


def test_close_ends_the_thread_without_another_callback(log):
    threads = []

    def fail(flag):
        threads.append(threading.current_thread())
        raise RuntimeError("too late")

    release, flag = log.blocked(fail)
    closing = threading.Thread(target=log.worker.close)
    closing.start()
    assert flag.wait(LONG)  # close has begun
    release.set()
    closing.join(LONG)
    assert not closing.is_alive() and not threads[0].is_alive()
    assert (log.errors, log.idle) == ([], [])


def test_nothing_runs_after_close(log):
    log.worker.close()
    log.worker.close()
    ran = []
    log.worker.submit(lambda flag: ran.append("never"))
    assert log.worker.wait(0.05) and not log.worker.busy
    assert (ran, log.idle) == ([], [])


@pytest.mark.parametrize("which", ["error", "idle"])
def test_a_callback_that_fails_does_not_end_all_later_work(which, capsys):
    def fail(_):
        raise RuntimeError(f"{which} callback broke")

    callbacks = {"error": lambda _: None, "idle": lambda _: None, which: fail}
    worker = Worker(callbacks["error"], callbacks["idle"])
    try:
        worker.submit(lambda flag: 1 / 0)
        assert worker.wait(LONG)
        ran = []
        worker.submit(lambda flag: ran.append(1))
        assert worker.wait(LONG) and ran == [1]
    finally:
        worker.close()
    assert f"{which} callback broke" in capsys.readouterr().err
