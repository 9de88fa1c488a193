"""The set-up uses PyTorch's CPU builds where there is no GPU, if their index answers."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tools.torch_index import answers, has_gpu


class TorchPage(BaseHTTPRequestHandler):
    """An index that has torch at /whl/cpu and nothing elsewhere."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/whl/cpu/torch/" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the output is the test's."""


def test_an_index_that_answers_is_used() -> None:
    with HTTPServer(("127.0.0.1", 0), TorchPage) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert answers(f"{address}/whl/cpu")
        assert not answers(address)
        server.shutdown()


def test_an_index_that_cannot_be_reached_is_not_used() -> None:
    assert not answers("http://127.0.0.1:1")


@pytest.mark.parametrize(("exit_code", "found"), [(0, True), (9, False)])
def test_a_gpu_is_one_that_the_driver_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exit_code: int, *, found: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not has_gpu()
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nexit {exit_code}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert has_gpu() is found
