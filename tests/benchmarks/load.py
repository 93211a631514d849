"""Servers, and how many requests they answer in a second."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

PATIENCE = 30
"""Seconds after which a server that does not answer will not."""
CONNECTIONS = 16
"""Two for each thread of gunicorn's, so that nobody waits for the next request."""
PACKAGES = {"gunicorn": ["gunicorn"], "uvicorn": ["uvicorn", "uvloop", "httptools"]}
"""Of each server, as its manual recommends it."""
SERVERS = {
    "gunicorn": [
        "-m",
        "gunicorn",
        "--log-level",
        "error",
        "--workers",
        "2",
        "--threads",
        "4",
        "--bind",
        "127.0.0.1:{port}",
        "tests.benchmarks.server:wsgi()",
    ],
    "uvicorn": [
        "-m",
        "uvicorn",
        "--log-level",
        "error",
        "--no-access-log",
        "--workers",
        "2",
        # Without it, each answer waits for an acknowledgement of its header fields (Nagle's algorithm, 40 ms).
        "--loop",
        "uvloop",
        "--port",
        "{port}",
        "--factory",
        "tests.benchmarks.server:asgi",
    ],
}


@contextmanager
def served(server, environment):
    """Serve what the environment names; yields the address. It has stopped gracefully afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *(part.format(port=port) for part in SERVERS[server])]
    process = subprocess.Popen(command, env=os.environ | environment)
    try:
        _wait_for(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process, port):
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request("GET", "/bare/hot/")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("The server does not answer.")


def per_second(url, seconds):
    """How many requests are answered in a second, by several connections that are kept alive."""
    if wrk := shutil.which("wrk"):
        command = [
            wrk,
            "--threads",
            "1",
            "--connections",
            str(CONNECTIONS),
            "--duration",
            f"{seconds}s",
            "--timeout",
            f"{PATIENCE}s",
            url,
        ]
    else:
        command = [sys.executable, "-m", "tests.benchmarks.load", url, str(seconds)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise RuntimeError(f"{url}: {printed}")
    return float(re.search(r"Requests/sec:\s*([\d.]+)", printed)[1])


def main(url, seconds):
    """Do what wrk does, where it is not installed; it takes more of the machine."""
    host, _, path = url.removeprefix("http://").partition("/")
    until = time.perf_counter() + float(seconds)
    answered = []

    def client():
        connection, number = http.client.HTTPConnection(host, timeout=PATIENCE), 0
        while time.perf_counter() < until:
            connection.request("GET", f"/{path}")
            response = connection.getresponse()
            response.read()
            if response.status >= 300:
                print("Non-2xx", response.status)
            number += 1
        answered.append(number)

    clients = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
    began = time.perf_counter()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    print(f"Requests/sec: {sum(answered) / (time.perf_counter() - began):.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
