#!/usr/bin/env python3
"""Makes Markdown tables of files of samples, and draws the plots that they have rows for.

    report.py samples.csv           the tables, and plots with the range of the rounds
    report.py a.csv b.csv c.csv     the range of each ratio over several runs, and plots with the same
"""

import csv
import math
import pathlib
import statistics
import sys

# A row is unclear if more than this part ...
LIMITS = {
    "steal": 0.01,  # of all cores' time was given to others by the hypervisor,
    "others": 0.05,  # of all cores' time was used by other processes,
    "spread": 0.10,  # of the median ratio lies between its quartiles,
}
# or if it has fewer rounds than this.
MIN_ROUNDS = 3

NAMES = {
    "raw": "raw TCP",
    "tungstenite": "tungstenite",
    "tungstenite-batch": "tungstenite, one flush a read",
    "tungstenite-tls": "tungstenite",
    "nginx": "nginx",
    "fastwebsockets": "fastwebsockets",
    "ws": "ws",
    "ws-level1": "ws, level 1",
    "websockets": "websockets",
    "websockets-level1": "websockets, level 1",
    "uwebsockets": "uWebSockets",
    "prefix": "wsecho with its prefix",
    "against": "other wsecho",
    "wsecho": "wsecho",
    "haproxy": "three wsecho behind HAProxy",
}
# The servers that grow.
PROCESSES = {"wsecho": "one process", "haproxy": "three processes"}

ROWS = {
    "20b-1": "20 B, 1 client ¹",
    "20b-10": "20 B, 10 clients",
    "20b-100": "20 B, 100 clients",
    "20b-500": "20 B, 500 clients",
    "1k-1": "1 KiB, 1 client ¹",
    "1k-10": "1 KiB, 10 clients",
    "1k-100": "1 KiB, 100 clients",
    "1k-500": "1 KiB, 500 clients",
    "16k-10": "16 KiB, 10 clients",
    "16k-100": "16 KiB, 100 clients",
    "pipelined": "20 B, 10 clients, 64 in flight",
    "64k-10": "64 KiB, 10 clients",
    "64k-100": "64 KiB, 100 clients",
    "1m-1": "1 MiB, 1 client",
    "1m-4": "1 MiB, 4 clients",
    "16m-1": "16 MiB, 1 client",
    "16m-4": "16 MiB, 4 clients",
    "first-16m": "16 MiB, first message of a client",
    "connect-1": "connect … close, one after another ¹",
    "connect-16": "connect … close, 16 at once",
    "tls-20b-100": "20 B, 100 clients, TLS",
    "tls-16k-100": "16 KiB, 100 clients, TLS",
    "tls-1m-4": "1 MiB, 4 clients, TLS",
    "tls-handshake-16": "TLS handshakes, 16 at once",
    "deflate-1k-100": "1 KiB, 100 clients, no context takeover",
    "deflate-1k-100-takeover": "1 KiB, 100 clients, context takeover",
    "deflate-64k-10": "64 KiB, 10 clients, no context takeover",
    "deflate-64k-10-takeover": "64 KiB, 10 clients, context takeover",
}
MEMORY = {"idle": "one message", "idle-1m": "1 MiB and a ping interval of silence"}


class Run:
    """The samples of one file: `rows[row][server]` is a list of dictionaries, one per round."""

    def __init__(self, path):
        lines = pathlib.Path(path).read_text().splitlines()
        self.notes = [line[2:] for line in lines if line.startswith("# ")]
        self.rows = {}
        for sample in csv.DictReader(line for line in lines if not line.startswith("# ")):
            row, server = sample.pop("row"), sample.pop("server")
            del sample["cores"]
            samples = self.rows.setdefault(row, {}).setdefault(server, [])
            samples.append({key: float(value) for key, value in sample.items()})

    def figures(self, row, server, figure):
        return [figure(sample) for sample in self.rows.get(row, {}).get(server, [])]

    def median(self, row, server, figure):
        return statistics.median(self.figures(row, server, figure))

    def servers(self, rows):
        return [name for name in NAMES if any(name in self.rows.get(row, {}) for row in rows)]

    def ratios(self, row, server, other):
        """Of the pairs of each round: what slows a whole round down slows both."""
        servers = self.rows.get(row, {})
        others = {sample["round"]: rate(sample) for sample in servers.get(other, [])}
        pairs = [(rate(s), others.get(s["round"])) for s in servers.get(server, [])]
        return [own / other for own, other in pairs if other]

    def cpu(self, row, server):
        """Processor time of a message in µs, over all rounds since one has few clock ticks."""
        seconds, messages = (
            sum(self.figures(row, server, lambda s: s[figure])) for figure in ("cpu", "messages")
        )
        return 1e6 * seconds / messages

    def ratio(self, row, server, other):
        """The median, its quartiles, and why it is unclear."""
        ratios = self.ratios(row, server, other)
        if not ratios:
            return "—"
        low, median, high = quartiles(ratios)
        samples = [sample for name in (server, other) for sample in self.rows[row][name]]
        parts = {part: statistics.mean(s[part] for s in samples) for part in ("steal", "others")}
        parts["spread"] = (high - low) / median
        why = [f"{name} {part:.0%}" for name, part in parts.items() if part > LIMITS[name]]
        if len(ratios) < MIN_ROUNDS:
            why = ["too few rounds"]
        unclear = f" unclear: {', '.join(why)}" if why else ""
        return f"{median:.2f} ({low:.2f}–{high:.2f}){unclear}"

    def rate_text(self, row, server):
        """In MB/s for large messages, else in thousands a second."""
        title = ROWS[row]
        scale = int(title.split()[0]) * 1.048576 if " MiB" in title else 1e-3
        low, median, high = (short(scale * r) for r in quartiles(self.figures(row, server, rate)))
        return f"{median} ({low}–{high})"

    def latency(self, row, server):
        figures = [1e6 * self.median(row, server, lambda s: s[q]) for q in ("p50", "p99", "p99.9")]
        return " / ".join(map(short, figures))

    def cpu_text(self, row, server):
        busy = sum(self.figures(row, server, lambda s: s["cpu"]))
        busy /= sum(self.figures(row, server, lambda s: s["seconds"]))
        return f"{short(self.cpu(row, server))} ({busy:.0%})"

    def reply(self, row, server):
        return f"{self.median(row, server, lambda s: s['reply']):,.0f}"


def rate(sample):
    return sample["messages"] / sample["seconds"]


def quartiles(figures):
    many = len(figures) > 1
    return statistics.quantiles(figures, n=4, method="inclusive") if many else figures * 3


def short(number):
    """Three digits that matter."""
    return f"{number:.{sum(number < limit for limit in (100, 10, 1))}f}"


def table(title, text, head, lines):
    if lines:
        print(f"\n### {title}\n{text}")
        for line in [head, ["---"] * len(head), *lines]:
            print("|", " | ".join(line), "|")


def tables(run):
    print(*(f"- {note}" for note in run.notes), sep="\n")
    rows = [row for row in ROWS if row in run.rows]
    servers = run.servers(rows)
    names = [NAMES[server] for server in servers]
    others = [server for server in servers if server != "wsecho"]

    def each_server(text, rows=rows):
        return [
            [ROWS[row], *(text(row, s) if s in run.rows[row] else "—" for s in servers)]
            for row in rows
        ]

    limits = ", ".join(f"{name} over {limit:.0%}" for name, limit in LIMITS.items())
    table(
        "wsecho divided by others",
        "\nMessages or connections a second: the median and the quartiles of each round's pair."
        f"\nUnclear: {limits}, or fewer than {MIN_ROUNDS} rounds."
        "\n¹ Server and generator share one core.\n",
        ["work", *(f"÷ {NAMES[other]}" for other in others)],
        [[ROWS[row], *(run.ratio(row, "wsecho", other) for other in others)] for row in rows],
    )
    table(
        "Throughput",
        "\nThousands a second, MB/s from 1 MiB on: the median and the quartiles of the rounds.\n",
        ["work", *names],
        each_server(run.rate_text),
    )
    table(
        "Latency",
        "\nFrom sending a message to its complete reply, for connect the whole connection: µs, p50 / p99 /"
        "\np99.9, medians of the rounds.\n",
        ["work", *names],
        each_server(run.latency),
    )
    table(
        "Processor time of the server",
        "\nµs a message, user and system, and the part of a core that is busy.\n",
        ["work", *names],
        each_server(run.cpu_text),
    )
    deflated = [row for row in rows if row.startswith("deflate")]
    table("Bytes of a reply", "", ["work", *names], each_server(run.reply, deflated))

    def each_figure(row, *figures):
        return [
            [NAMES[server], *(get(run.figures(row, server, figure)) for figure, get in figures)]
            for server in run.servers([row])
        ]

    for row, what in MEMORY.items():
        names = ["messages", "resident", "page_tables"]
        figures = [(lambda s, n=n: s[n], lambda f: short(statistics.median(f))) for n in names]
        head = ["server", "clients", "resident, KiB each", "page tables, KiB each"]
        title = f"Memory of a client that is idle after {what}"
        table(title, "", head, each_figure(row, *figures))
    figures = [(lambda s, n=n: 1e3 * s[n], lambda f: short(max(f))) for n in ("p50", "p99", "max")]
    table(
        "4,000 clients at once",
        "\nms from a connect at the same instant to the first reply, in the slowest of the rounds.\n",
        ["server", "p50", "p99", "last"],
        each_figure("burst", *figures),
    )
    growth(run)


def numbered(run, name):
    """The numbers of the rows `NAME-NUMBER`."""
    rows = [row.rpartition("-") for row in run.rows]
    return sorted(int(number) for row, _, number in rows if row == name)


def growth(run):
    parts = ("connect", "few", "all", "stop")
    lines = []
    for clients in numbered(run, "grow-stop"):
        for server in run.servers([f"grow-stop-{clients}"]):
            connect, few, every, stop = (
                lambda figure, row=f"grow-{part}-{clients}": run.median(row, server, figure)
                for part in parts
            )
            lines.append([
                f"{clients:,}",
                PROCESSES[server],
                f"{few(lambda s: s['resident']):.1f} / {every(lambda s: s['resident']):.1f}",
                f"{few(lambda s: s['machine']):.0f}" if clients >= 1_000 else "—",
                short(1e-3 * connect(rate)),
                " / ".join(short(1e6 * few(lambda s: s[q])) for q in ("p50", "p99")),
                " / ".join(short(1e3 * every(lambda s: s[q])) for q in ("p50", "p99")),
                short(1e-3 * every(rate)),
                short(run.cpu(f"grow-all-{clients}", server)),
                short(stop(lambda s: s["seconds"])),
            ])
    table(
        "How it grows",
        "\nMemory is KiB of a client: resident while it is idle / after it talked, and what the whole machine"
        "\nuses for it, with the kernel's stack and both ends' sockets. The echo has p50 / p99. Three processes"
        "\nare behind HAProxy. Medians of the rounds.\n",
        [
            "clients",
            "server",
            "memory",
            "machine",
            "thousand connections/s",
            "echo, ten talk, µs",
            "echo, all talk, ms",
            "thousand messages/s",
            "processor, µs a message",
            "stop, s",
        ],
        lines,
    )


def ranges(runs):
    for run in runs:
        print(f"- {'; '.join(run.notes)}")
    names = [name for name in NAMES if any(name in run.servers(ROWS) for run in runs)]
    others = [name for name in names if name != "wsecho"]
    lines = []
    for row, title in ROWS.items():
        ratios = [[run.ratios(row, "wsecho", other) for run in runs] for other in others]
        medians = [[statistics.median(each) for each in every if each] for every in ratios]
        if any(medians):
            lines.append([title, *(f"{min(m):.2f}–{max(m):.2f}" if m else "—" for m in medians)])
    head = ["work", *(f"÷ {NAMES[other]}" for other in others)]
    table(f"wsecho divided by others: lowest and highest median of {len(runs)} runs", "", head, lines)


# Colours of medium lightness, each with its own dashes, so that no line is known by its colour alone.
STYLES = ["#8c8c8c 7,4", "#d9822b 2,3", "#4098d7 10,3,2,3", "#2e9e6b 14,4", "#d63384 none"]
# Greys that are legible on light and on dark pages: an image does not know which it is on.
CSS = """text{font:13px system-ui,sans-serif;fill:#757e88}
.title{font-size:15px;font-weight:600}
.grid{stroke:#757e88;stroke-opacity:.3}
.range{stroke:none;fill-opacity:.2}
.line{fill:none;stroke-width:2.5;stroke-linejoin:round}"""


def points(runs, name, server, figure):
    """For each row `NAME-NUMBER`: the number, and the lowest, the median and the highest figure, of the
    rounds of one run or of the medians of several."""
    found = []
    for x in sorted({number for run in runs for number in numbered(run, name)}):
        each = [run.figures(f"{name}-{x}", server, lambda s: figure(s, x)) for run in runs]
        each = [figures for figures in each if figures]
        figures = each[0] if len(each) == 1 else [statistics.median(f) for f in each]
        if figures:
            found.append((x, min(figures), statistics.median(figures), max(figures)))
    return found


def panel(title, y_title, label, x_title, lines, width, height):
    """Draws lines of points with two logarithmic axes, and prints their medians."""
    lines = {name: found for name, found in lines.items() if found}
    left, right, top, bottom = 64, width - 32, 94, height - 56
    xs = sorted({x for found in lines.values() for x, *_ in found})
    ys = [y for found in lines.values() for _, *range in found for y in range if y > 0]
    steps = [step * 10**power for power in range(-6, 9) for step in (1, 2, 5)]
    low, high = max(s for s in steps if s <= min(ys)), min(s for s in steps if s > max(ys))
    steps = [step for step in steps if low <= step <= high]
    if len(steps) > 8:
        steps = [step for step in steps if math.log10(step).is_integer()]
    power = 4 if xs[0] == 16 else 10
    ticks = [power**n for n in range(20) if xs[0] <= power**n <= xs[-1]]

    def across(x):
        return left + (right - left) * math.log(x / xs[0]) / math.log(xs[-1] / xs[0])

    def up(y):
        return bottom + (top - bottom) * math.log(max(y, low) / low) / math.log(high / low)

    def text(x, y, words, anchor="start", css=""):
        return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'

    svg = [text(left, 22, title, css="title"), text(8, top - 10, y_title)]
    for step in steps:
        svg.append(f'<path class="grid" d="M{left} {up(step):.1f}H{right}"/>')
        svg.append(text(left - 8, up(step) + 4, f"{step:,g}", "end"))
    for tick in ticks:
        svg.append(f'<path class="grid" d="M{across(tick):.1f} {top}V{bottom}"/>')
        svg.append(text(across(tick), bottom + 19, label(tick), "middle"))
    svg.append(text(right, bottom + 42, x_title, "end"))
    print(f"\n{title}, {y_title}:\n")
    x, y = left, 45
    for (name, found), style in zip(lines.items(), STYLES):
        colour, dashes = style.split()
        line = f'class="line" stroke="{colour}" stroke-dasharray="{dashes}"'
        if x + 34 + 7 * len(name) > right:
            x, y = left, y + 20
        svg.append(f'<path {line} d="M{x} {y}h28"/>{text(x + 34, y + 5, name)}')
        x += 58 + 7 * len(name)
        edge = [(x, low) for x, low, _, _ in found] + [(x, high) for x, *_, high in found[::-1]]
        for shape, corners in [
            (f'polygon class="range" fill="{colour}"', edge),
            (f"polyline {line}", [(x, median) for x, _, median, _ in found]),
        ]:
            corners = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in corners)
            svg.append(f'<{shape} points="{corners}"/>')
        print(f"- {name}:", ", ".join(f"{label(x)}: {short(y)}" for x, _, y, _ in found))
    return svg


def draw(name, title, panels, columns, width, height):
    """Draws the panels that have lines beside and below each other."""
    panels = [each for each in panels if any(len(found) > 1 for found in each[-1].values())]
    if not panels:
        return
    whole = f"0 0 {columns * width} {math.ceil(len(panels) / columns) * height}"
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{whole}" role="img">']
    svg += [f"<title>{title}</title>", f"<style>{CSS}</style>"]
    for place, each in enumerate(panels):
        x, y = place % columns * width, place // columns * height
        svg += [f'<g transform="translate({x} {y})">', *panel(*each, width, height), "</g>"]
    path = pathlib.Path(__file__).with_name(f"{name}.svg")
    path.write_text("\n".join([*svg, "</svg>\n"]))


def plots(runs):
    def lines(name, figure, servers=("raw", "tungstenite", "fastwebsockets", "uwebsockets", "wsecho")):
        return {NAMES[server]: points(runs, name, server, figure) for server in servers}

    title = "Throughput by number of clients: 20 B, one message in flight each"
    by_clients = lines("clients", lambda s, _: 1e-3 * rate(s))
    panels = [(title, "thousand messages/s", "{:,}".format, "clients", by_clients)]
    draw("clients", title, panels, 1, 720, 440)
    title = "Throughput by message size: 10 clients, one message in flight each"
    by_size = lines("sizes", lambda s, size: 1e-6 * size * rate(s))
    draw("sizes", title, [(title, "MB/s", size_text, "message", by_size)], 1, 720, 440)

    def grown(title, unit, part, figures):
        lines = {}
        for server, name in PROCESSES.items():
            for what, figure in figures:
                lines[name + what] = points(runs, f"grow-{part}", server, lambda s, _: figure(s))
        return title, unit, "{:,}".format, "clients", lines

    def figures(scale, *names):
        return [(f", {n}" * (len(names) > 1), lambda s, n=n: scale * s[n]) for n in names]

    per_second = [("", lambda s: 1e-3 * rate(s))]
    panels = [
        grown("Memory of an idle client", "KiB resident", "few", figures(1, "resident")),
        grown("Connections", "thousands/s", "connect", per_second),
        grown("Echo while ten clients talk", "µs", "few", figures(1e6, "p50", "p99")),
        grown("Echo while all clients talk", "ms", "all", figures(1e3, "p50", "p99")),
        grown("Throughput while all talk", "thousand messages/s", "all", per_second),
        grown("Stop with all clients connected", "s", "stop", figures(1, "seconds")),
    ]
    draw("growth", "How wsecho grows from 10 to 30,000 clients", panels, 2, 480, 330)


def size_text(number):
    units = [(1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")]
    return next(f"{number // unit} {name}" for unit, name in units if number >= unit)


def main():
    runs = [Run(path) for path in sys.argv[1:]]
    if not runs:
        sys.exit(__doc__)
    if len(runs) == 1:
        tables(*runs)
    else:
        ranges(runs)
    plots(runs)


main()
