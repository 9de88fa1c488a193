"""Celery's request of a run in the parent process, where the child's verdict on its own health arrives."""

from typing import Any

from celery.worker.request import Request

from worker.serve import child
from worker.serve.faults import report_unhealthy


class RunTaskRequest(Request):
    """A request whose end may also end the worker."""

    worker_pid: Any
    """The process id of the child; the stubs take it for a text."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - Celery's signature
        if isinstance(exc_info.exception, SystemExit):
            child.ends(self.worker_pid)
        ended = super().on_failure(exc_info, send_failed_event, return_ok)
        report_unhealthy(exc_info.exception)
        return ended
