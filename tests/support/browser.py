"""A Chromium without a window, driven over chromedriver's HTTP (https://www.w3.org/TR/webdriver2/)."""

import base64
import json
import shutil
import subprocess
import time
from http.client import HTTPConnection

PATIENCE = 30.0
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",),
)
MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]


class Browser:
    """A browser with one window: `run` evaluates JavaScript in its page."""

    def __init__(self, folder, *, dark=False):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        line = next(line for line in self.driver.stdout if "started successfully on port" in line)
        self.port, self.session = int(line.rstrip(".\n").rpartition(" ")[2]), ""
        theme = ("--force-dark-mode", "--blink-settings=preferredColorScheme=0") if dark else ()
        options = {"binary": shutil.which("chromium"), "args": [*FLAGS, *theme, f"--user-data-dir={folder}"]}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        self.session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._call("DELETE", f"/session/{self.session}")
        finally:
            self.driver.terminate()
            self.driver.wait(PATIENCE)
            self.driver.stdout.close()

    def _call(self, method, path, value=None):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            body = json.dumps(value if value is not None else {}) if method == "POST" else None
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        assert not (isinstance(answer, dict) and "error" in answer and "stacktrace" in answer), answer["message"]
        return answer

    def command(self, method, path, value=None):
        return self._call(method, f"/session/{self.session}{path}", value)

    def open(self, url):
        self.command("POST", "/url", {"url": url})

    def size(self, width, height):
        """Give the page this size, however wide a window may be at least."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.command("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def run(self, script, *arguments):
        return self.command("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, expression):
        """Return the value of a JavaScript expression as soon as it is true."""
        until = time.monotonic() + PATIENCE
        while not (found := self.run(f"return {expression}")):
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.02)
        return found

    def element(self, selector):
        found = self.command("POST", "/element", {"using": "css selector", "value": selector})
        return f"/element/{found[ELEMENT]}"

    def click(self, selector):
        self.command("POST", f"{self.element(selector)}/click")

    def type(self, selector, text):
        self.command("POST", f"{self.element(selector)}/value", {"text": text})

    def keys(self, text):
        """Press and let go keys where the focus is."""
        actions = [{"type": kind, "value": letter} for letter in text for kind in ("keyDown", "keyUp")]
        self.command("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def screenshot(self):
        return base64.b64decode(self.command("GET", "/screenshot"))

    def console(self):
        """Return what the console said since the last call, warnings and errors."""
        entries = self.command("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def requested(self):
        """Return the URLs asked for since the last call."""
        entries = self.command("POST", "/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return sent
