"""Chromium without a window or a network, driven through its DevTools protocol: just what tests of pages need."""

import base64
import json
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websocket import WebSocket, create_connection

# Nothing outside resolves, so a page that asks for something fails where a reader without a network would.
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-dev-shm-usage")
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
# {key: (code, Windows key code)} of those that are no letters.
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "ArrowDown": 40, "ArrowUp": 38, "Tab": 9}


class Chromium:
    """A browser with one page. `errors` are what its console reports, `requests` the addresses that it asked for."""

    def __init__(self, program: str, folder: Path):
        """Start `program` with a profile in `folder`; raise TimeoutError if it does not answer within 60 s."""
        command = [program, *OPTIONS, OFFLINE, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._number, self._loaded = 0, False
        self._socket = self._connect(folder / "DevToolsActivePort")
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _connect(self, file: Path) -> WebSocket:
        for _ in range(600):
            if file.exists() and len(lines := file.read_text().splitlines()) == 2:
                with urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as reply:
                    pages = [target for target in json.load(reply) if target["type"] == "page"]
                if pages:
                    return create_connection(pages[0]["webSocketDebuggerUrl"], timeout=60, suppress_origin=True)
            time.sleep(0.1)
        self.process.kill()
        raise TimeoutError("chromium does not answer")

    def close(self) -> None:
        """End the browser."""
        self._socket.close()
        self.process.terminate()
        self.process.wait(20)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what a command of the protocol returns; raise AssertionError where it fails."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != self._number:
            pass
        assert "error" not in message, message
        return message["result"]

    def _receive(self) -> dict[str, Any]:
        message = json.loads(self._socket.recv())
        about = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.errors.append(about["exceptionDetails"].get("exception", {}).get("description", str(about)))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in about["args"]))
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.errors.append(about["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
        return message

    def open(self, path: Path, fragment: str = "") -> float:
        """Open a file anew, with the hash `fragment`; return the seconds until the page was loaded and its scripts had run."""
        return self.visit(f"{path.absolute().as_uri()}{fragment}")

    def visit(self, address: str) -> float:
        """Open an address anew; return the seconds until the page was loaded and its scripts had run."""
        # Another hash of the page that is open would load nothing.
        self._go("about:blank")
        self.errors, self.requests = [], []
        began = time.perf_counter()
        self._go(address)
        return time.perf_counter() - began

    def _go(self, url: str) -> None:
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._receive()

    def run(self, script: str) -> Any:
        """Return the value of an expression on the page, awaited; raise AssertionError if it throws."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """Return the value of an expression once it is true; raise AssertionError with the page's text if it is not in time."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"{script}\n{self.run('document.body.innerText')}"
            time.sleep(0.2)
        return value

    def press(self, key: str) -> None:
        """Press and release a key on whatever has the focus."""
        code = KEYS.get(key, ord(key[0].upper()))
        typed = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def window(self, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the window in CSS pixels, and which colours its reader prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        colours = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[colours])

    def picture(self, path: Path) -> None:
        """Write what is in the window as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
