"""A made-up report: numbers in the form of report.json, and what reads the page and the images made from them.

Every number differs from its neighbours, so that a swapped cell shows.
"""

import base64
import json
import os
import select
import struct
import subprocess
import sys
import zlib
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from placement_example import placement_example

from hardspike.deploy.report.analysis import Analysis, analysis_to_json
from hardspike.deploy.report.chart import BarChart, Bars, Line, LineChart

FORMS = ("ann", "snn", "deployed")
STEPS = 4
SETS = ("davies2018", "sanafe")
VOID = {"meta", "link", "br", "img"}
SPACE = "\N{NO-BREAK SPACE}"


def share(value: float, n: int = 200) -> dict[str, Any]:
    value = max(0.0, value)
    return {"value": value, "low": max(0.0, value - 0.0213), "high": min(1.0, value + 0.0171), "n": n}


def three(value: float) -> dict[str, Any]:
    return {form: share(value - 0.011 * i) for i, form in enumerate(FORMS)}


def distribution(mean: float) -> dict[str, float]:
    return {"mean": mean, "p50": 0.98 * mean, "p95": 1.21 * mean, "max": 1.43 * mean}


def joule(mean: float) -> dict[str, Any]:
    by_set = {name: distribution(mean * factor) for name, factor in zip(SETS, (1.0, 1.37), strict=True)}
    return {"low": by_set["davies2018"], "high": by_set["sanafe"], "by_set": by_set}


def replayed(kind: str, eps: float, made_on: str, layers: Sequence[str], size: float) -> dict[str, Any]:
    """size: scales every count; 0 gives a network that never fires."""
    rows = []
    for index, name in enumerate(layers):
        fires = index < len(layers) - 1
        spikes = distribution(size * (311 - 90 * index))
        rows.append(
            {
                "name": name,
                "neurons": 64 - 20 * index,
                "neuron_updates": (64 - 20 * index) * STEPS,
                "synaptic_operations": distribution(size * (4021 + 1111 * index)),
                "spikes": spikes if fires else None,
                "spike_rate": spikes["mean"] / ((64 - 20 * index) * STEPS) if fires else None,
                "active_neurons": distribution(size * (41 - 7 * index)) if fires else None,
                "energy_j": joule(1e-7 * size * (3 + 2 * index) + 1e-9),
            }
        )
    totals = {key: sum(r[key]["mean"] for r in rows if r[key]) for key in ("spikes", "synaptic_operations")}
    energy = sum(row["energy_j"]["low"]["mean"] for row in rows)
    return {
        "name": f"{kind} {made_on} {eps:g}".strip(),
        "kind": kind,
        "eps": eps,
        "made_on": made_on,
        "accuracy": three(0.97 - 2 * eps * (kind == "attack") - 0.004 * len(made_on)),
        "accuracy_snn_before_grid": share(0.9512 - eps),
        "agreement": 0.9876 - eps / 7,
        "right_only_snn": 3 + int(100 * eps),
        "right_only_deployed": 40 + int(100 * eps),
        "spikes": distribution(totals["spikes"]),
        "synaptic_operations": distribution(totals["synaptic_operations"]),
        "energy_j": joule(energy),
        "layers": rows,
        "spikes_over_time": {
            name: [size * (7 + index + 3 * step) for step in range(STEPS)] for index, name in enumerate(layers[:-1])
        },
    }


def equality(name: str, compared: int, differing: int = 0, *, first: str = "", exact: bool = True) -> dict[str, Any]:
    verdict = ("equal" if differing == 0 else "DIFFERS") if exact else "measured"
    return {
        "name": name,
        "what": f"{compared % 97} images",
        "compared": compared,
        "differing": differing,
        "first": first,
        "reason": "",
        "exact": exact,
        "verdict": verdict,
    }


def network(
    name: str,
    training: str,
    robust: float,
    *,
    eps: Sequence[float] = (0.05, 0.1),
    targets: Sequence[str] = FORMS,
    layers: Sequence[str] = ("spike1", "spike2", "dense3"),
    size: float = 1.0,
) -> dict[str, Any]:
    """robust: accuracy under attack at eps 0; it falls with eps."""
    members = ("fgsm", "pgd20/triangular:1", "pgd20/straight-through")
    replay = [replayed("clean", 0.0, "", layers, size)]
    budgets = []
    for budget in eps:
        replay.append(replayed("noise", budget, "", layers, 1.04 * size))
        replay += [replayed("attack", budget, target, layers, (1.1 + budget) * size) for target in targets]
        budgets.append(
            {
                "eps": budget,
                "white_box": {t: share(robust - 3 * budget - 0.017 * i) for i, t in enumerate(targets)},
                "members": {t: {m: robust - budget - 0.013 * k for k, m in enumerate(members)} for t in targets},
                "deployed_worst_case": share(robust - 3.3 * budget),
                "noise": {f"noise eps {budget:g}": three(0.96 - budget / 9)},
                **({"seed": 7} if targets else {}),
            }
        )
    checks = [{"name": f"noise beats the attack at eps {e:g}", "fired": False, "detail": f"noise {e}"} for e in eps]
    return {
        "name": name,
        "training": training,
        "parameters": 12345,
        "neurons": 108,
        "time_steps": STEPS,
        "profile": "loihi2",
        "weight_bits": 8,
        "backend": "emulator",
        "clean": three(0.97),
        "agreement": 0.9876,
        "robust": budgets,
        "replay": replay,
        "fit": [
            {
                "name": layer,
                "scale": 1234.5 + index,
                "binding": "numerics.mixed_weight",
                "threshold": 2345 + index,
                "largest_weight": 254 - index,
                "largest_bias": 1678 + index,
                "relative_weight_error": 0.0039 + index / 1000,
                "relative_threshold_error": 0.00061 + index / 10000,
                "constant_channel": index == 0,
            }
            for index, layer in enumerate(layers)
        ],
        "equalities": [
            equality("1 folded = unfolded", 12301),
            equality("2 emulator = oracle", 23402),
            equality("3 emulator = Lava", 34503),
            equality("4 .net file = graph", 45604),
            # The same for every network: it is about networks that ship with lava-dl.
            equality("5 emulator = lava-dl's tiny.net", 56705),
            equality("5 emulator = lava-dl's sdnn.net", 0) | {"reason": "sigma-delta", "verdict": "not compared"},
            equality("6 float SNN, class", 16, 1, exact=False),
            equality("6 float SNN, spike1", 8192, 77, first="spike of spike1 step 1", exact=False),
        ],
        "checks": checks if "deployed" in targets else [],
        "seconds": {"train": 12.34, "convert": 5.67},
    }


def constant(value: float, source: str) -> dict[str, Any]:
    return {"value": value, "unit": "pJ", "source": source, "trust": "B", "kind": "simulated", "bound": "min"}


def example(index: int, channels: int = 1) -> dict[str, Any]:
    clean = [[[(x + 2 * y + c) / 9 for x in range(4)] for y in range(3)] for c in range(channels)]
    attacked = [
        [[value + 0.1 if round(9 * value) % 2 else max(value - 0.05, 0) for value in row] for row in plane]
        for plane in clean
    ]
    return {
        "index": index,
        "label": 4,
        "eps": 0.1,
        "broken_by": "pgd20/straight-through" if index % 2 else "none",
        "predicted_clean": 4,
        "predicted_attacked": 9 if index % 2 else 4,
        "clean": clean,
        "attacked": attacked,
    }


def report_example(**main: Any) -> dict[str, Any]:
    """A report with a control network. main: arguments of `network` for both networks."""
    events = ("synaptic_operation", "synaptic_operation_convolution", "neuron_update_active", "neuron_update_idle")
    return {
        "run": "tiny",
        "run_path": "runs/tiny",
        "written": "2026-01-02 03:04",
        "environment": {
            "python": "3.10.13",
            "commit": None,
            "threads": 1,
            "seed": 7,
            "command": "hardspike run tiny.toml",
            "versions": {"torch": "2.3.1", "hardspike": "0.1.0", "lava-nc": None},
        },
        "recipe": 'name = "tiny"\nthreads = 1\n',
        "dataset": "digits",
        "networks": [
            network("tiny", "adversarial ANN, robust_kl finetuning", 0.93, **main),
            network("control", "natural ANN, natural finetuning", 0.71, **main),
        ],
        "examples": [example(index) for index in range(3)],
        "energy": {
            "chip": "Intel Loihi 1",
            "sets": {
                name: {"name": name, "title": f"title of {name}"}
                | {event: constant(20.5 + 7 * i + j, f"source {i}{j}") for j, event in enumerate(events)}
                for i, name in enumerate(SETS)
            },
            "not_priced": ("messages between cores", "static power"),
        },
        "placement": placement_example(main.get("layers", ("spike1", "spike2", "dense3"))),
        "analyses": [{"analysis": analysis_to_json(analysis_example()), "commit": "0123456789ab"}],
        "stale_analyses": [],
    }


def analysis_example(text: str = "found", name: str = "eps") -> Analysis:
    """A line chart and a bar chart, with `text` in every text that a file could hold."""
    line = Line(name=text, tone="deployed", x=(0.0, 0.1), y=(1.0, 0.5))
    bars = Bars(name=text, tone="clean", values=(1.0,))
    told = {"title": f"A chart made up for this page, of {text}", "caption": text}
    lines = LineChart(name=f"{name}-curve", x_label=text, y_label=text, lines=(line,), **told)
    other = BarChart(name=f"{name}-bars", label=text, categories=(text,), bars=(bars,), **told)
    return Analysis(
        name=name,
        title=f"Analysis {text}",
        question=text,
        found=(text,),
        conditions={"n": 3, text: text},
        charts=(lines, other),
        notes=(text,),
    )


class Page(HTMLParser):
    """Elements, text and tables of a page; `problems` where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.problems: list[str] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._caption = ""
        self._rows: list[list[str]] = []
        self.feed(html)
        self.close()
        self.problems += [f"{tag} is not closed" for tag in self._open]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        # A space where the browser starts a new line, so that a value and its interval stay apart.
        self.handle_data(" " if tag in ("br", "span") else "")
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"{tag} closes at line {self.getpos()[0]} inside {self._open[-3:]}")
        else:
            self._open.pop()
        if tag == "table":
            tidy = [[" ".join(cell.split()) for cell in row] for row in self._rows]
            self.tables[" ".join(self._caption.split())] = tidy

    def handle_data(self, data: str) -> None:
        data = data.replace(SPACE, " ")
        if "style" in self._open:
            return
        self.text += data
        if "caption" in self._open:
            self._caption += data
        elif ("td" in self._open or "th" in self._open) and self._rows:
            self._rows[-1][-1] += data

    def table(self, start: str) -> list[list[str]]:
        """Rows of the only table whose caption starts so."""
        (found,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        return found

    def row(self, start: str, *head: str) -> list[str]:
        """Cells after `head` of the first row that starts with it."""
        rows = self.table(start)
        return next(row[len(head) :] for row in rows if row[: len(head)] == list(head))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read_png(uri: str) -> tuple[int, int, int, bytes]:
    """Width, height, channels, bytes row by row."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    place, parts = 8, {}
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + body)
        parts[kind] = body
        place += 12 + length
    width, height, depth, colour = struct.unpack(">IIBB", parts[b"IHDR"][:10])
    channels = {0: 1, 2: 3}[colour]
    rows = zlib.decompress(parts[b"IDAT"])
    step = 1 + width * channels
    assert depth == 8 and len(rows) == height * step and not any(rows[::step])
    return width, height, channels, b"".join(rows[k * step + 1 : (k + 1) * step] for k in range(height))


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two hex colours."""

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        channels = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


class Browser:
    """A headless Chromium, driven over its debugging pipe; `events` holds what it reported since the last `open`."""

    def __init__(self, executable: str, profile: Path) -> None:
        flags = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-component-update"]
        flags += ["disable-background-networking", "disable-sync", "remote-debugging-pipe", f"user-data-dir={profile}"]
        (read, self._to), (self._from, write) = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        start = (
            "import os, sys; r, w = (os.dup(int(fd)) for fd in sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); "
            "os.set_inheritable(3, True); os.set_inheritable(4, True); os.execvp(sys.argv[3], sys.argv[3:])"
        )
        command = [sys.executable, "-c", start, str(read), str(write), executable, *(f"--{flag}" for flag in flags)]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=(read, write), stdin=quiet, stdout=quiet, stderr=quiet)
        os.close(read)
        os.close(write)
        self._count, self._buffer = 0, b""
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []

    def connect(self) -> None:
        # A page of our own: the first one shows the browser's new tab, which asks for much.
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message = {"id": self._count, "method": method, "params": params} | self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._count:
            self.events.append(answer)
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._from], [], [], 60)[0], "the browser does not answer"
            part = os.read(self._from, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        first, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(first)
        return answer

    def open(self, url: str, width: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
        )
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not self.found("Page.loadEventFired"):
            self.events.append(self._receive())

    def complaints(self, path: Path) -> list[str]:
        """Of a page, on a desk and on a phone, with and without scripts: requests, console messages, sideways scrolling, images
        without a text in their place."""
        wrong = []
        for width, without_scripts in ((1280, False), (390, False), (390, True)):
            self.call("Emulation.setScriptExecutionDisabled", value=without_scripts)
            self.open(path.as_uri(), width)
            asked = {params["request"]["url"] for params in self.found("Network.requestWillBeSent")}
            wrong += [f"asks for {url}" for url in asked if not url.startswith("data:") and url != path.as_uri()]
            told = self.found("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
            wrong += [f"says {message}" for message in told]
            if self.evaluate("document.documentElement.scrollWidth") > width:
                wrong.append(f"is wider than {width} pixels")
            bare = "img:not([alt]), svg:not([aria-hidden]):not([aria-label])"
            wrong += ["has an image without text"] * self.evaluate(f"document.querySelectorAll('{bare}').length")
        return wrong

    def found(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event.get("method") in methods]

    def evaluate(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"]["value"]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)
