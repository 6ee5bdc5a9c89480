"""A real web server on this machine that streams Motion JPEG, and cuts its connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np

BOUNDARY = "frame"


@dataclass
class Camera:
    """What the server shows, and what it saw.

    Attributes:
        cuts: connections that end after ``frames_before_cut`` frames; later ones go on until the server ends.
        frames_before_cut: see above.
        refused: connections to refuse after each cut.
        pause: seconds between frames.
        size_wh: px.
        files: below this folder are served as they are.
        connections: opened so far, refused ones included.
        sent: frames so far; frame n is evenly n % 200 bright.
    """

    cuts: int = 0
    frames_before_cut: int = 8
    refused: int = 0
    pause: float = 0.01
    size_wh: tuple[int, int] = (64, 48)
    files: Path | None = None
    connections: int = 0
    sent: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if camera.files is not None and (camera.files / self.path[1:].split("?")[0]).is_file():
                    self.wfile.write(
                        b"HTTP/1.0 200 OK\r\n\r\n" + (camera.files / self.path[1:].split("?")[0]).read_bytes()
                    )
                elif self.path.startswith("/stream"):
                    camera.connections += 1
                    camera.stream_to(self, camera.connections)
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler

    def stream_to(self, client: BaseHTTPRequestHandler, connection: int) -> None:
        served, place = divmod(connection - 1, 1 + self.refused)
        if place and served < self.cuts:
            client.send_error(503)
            return
        client.send_response(200)
        client.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        client.end_headers()
        sent_here = 0
        while not self.ended.is_set() and (served >= self.cuts or sent_here < self.frames_before_cut):
            image = np.full((self.size_wh[1], self.size_wh[0], 3), self.sent % 200, np.uint8)
            data = cv2.imencode(".jpg", image)[1].tobytes()
            head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            try:
                client.wfile.write(head + data + b"\r\n")
            except OSError:
                return
            sent_here += 1
            self.sent += 1
            time.sleep(self.pause)


@contextmanager
def serving(camera: Camera) -> Iterator[str]:
    """Serve inside; gives the address without a path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), camera.handler())
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        camera.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
