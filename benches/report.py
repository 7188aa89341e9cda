#!/usr/bin/env python3
"""Makes Markdown tables of a file of samples, and draws the two plots if it has their rows.

    benches/report.py samples.csv           the tables
    benches/report.py a.csv b.csv c.csv     for each row, the range of the medians of several runs
"""

import collections
import csv
import math
import pathlib
import statistics
import sys

# A row is unclear, and its goal neither met nor missed, from so much on:
STEAL = 0.01  # of the time of all cores was given to others by the hypervisor
SPREAD = 0.10  # of the median lies between the quartiles of the ratios

NAMES = {
    "raw": "raw TCP",
    "tungstenite": "tungstenite",
    "fastwebsockets": "fastwebsockets",
    "uwebsockets": "uWebSockets",
    "wsecho": "wsecho",
    "against": "wsecho, other binary",
    "prefix": "wsecho with its prefix",
    "tungstenite-batch": "tungstenite, one flush for all replies to a read",
}
COLUMNS = ["raw", "tungstenite", "fastwebsockets", "uwebsockets", "wsecho", "against"]

# Row: title, and the goals of wsecho as multiples of raw TCP, tungstenite and fastwebsockets.
ROWS = {
    "20b-1": ("20 B, 1 client", 0.97, 0.95),
    "20b-10": ("20 B, 10 clients", 0.97, 1.1),
    "20b-100": ("20 B, 100 clients", 0.97, 1.1),
    "20b-500": ("20 B, 500 clients", 0.97, 1.1),
    "1k-1": ("1 KiB, 1 client", 0.97, 0.95),
    "1k-10": ("1 KiB, 10 clients", 0.97, 1.1),
    "1k-100": ("1 KiB, 100 clients", 0.97, 1.1),
    "1k-500": ("1 KiB, 500 clients", 0.97, 1.1),
    "16k-10": ("16 KiB, 10 clients", 0.95, 1.2, 0.85),
    "16k-100": ("16 KiB, 100 clients", 0.95, 1.2, 0.85),
    "pipelined": ("20 B, 10 clients, 64 in flight", 0.95, 25, 25),
    "64k-10": ("64 KiB, 10 clients", 0.95, 1.3, 1.1),
    "64k-100": ("64 KiB, 100 clients", 0.95, 1.3, 1.1),
    "1m-1": ("1 MiB, 1 client", 0.92, 1.6, 1.6),
    "1m-4": ("1 MiB, 4 clients", 1.5, 1.3, 1.4),
    "16m-1": ("16 MiB, 1 client", 1.15, 1.6, 1.4),
    "16m-4": ("16 MiB, 4 clients", 1.2, 1.4, 1.1),
    "first-16m": ("16 MiB, first message of a client", 0.8, 1.3, 1.3),
    "connect-1": ("connect … close, one after another", 0.75, 1.05),
    "connect-16": ("connect … close, 16 at once", 0.8, 1.1),
}
# Row, server, the server it is compared with, and the goal.
VARIANTS = [
    ("20b-100", "prefix", "wsecho", 0.95),
    ("pipelined", "prefix", "wsecho", 0.85),
    ("pipelined", "wsecho", "tungstenite-batch", None),
]
# Row, title, and the goal in KiB for each client of wsecho.
MEMORY = [
    ("idle", "Memory of a client that is idle after one message", 11.6),
    ("idle-1m", "Memory of a client that is idle after 1 MiB and a ping interval of silence", 16),
]
CPU_ROW, CPU_GOAL = "20b-100", 0.3  # µs a message more than raw TCP
# In ms. A lost SYN is repeated after a second.
BURST_GOAL = 900


class Run:
    """The samples of one file: `rows[row][server]` is a list of dictionaries, one per round."""

    def __init__(self, path):
        lines = pathlib.Path(path).read_text().splitlines()
        self.notes = [line[2:] for line in lines if line.startswith("# ")]
        self.rows = collections.defaultdict(lambda: collections.defaultdict(list))
        self.cores = {}
        self.goals = collections.Counter()
        self.missed = []
        for row in csv.DictReader(line for line in lines if not line.startswith("# ")):
            name, server = row.pop("row"), row.pop("server")
            self.cores[name] = row.pop("cores")
            self.rows[name][server].append({key: float(value) for key, value in row.items()})

    def figures(self, row, server, figure):
        return [sample[figure] for sample in self.rows[row][server]]

    def rates(self, row, server):
        """Messages per second by round."""
        return {s["round"]: s["messages"] / s["seconds"] for s in self.rows[row][server]}

    def ratios(self, row, server, other):
        """By pairs of one round: what slows a whole round down slows both."""
        rates, others = self.rates(row, server), self.rates(row, other)
        return [rates[round] / others[round] for round in rates if round in others]

    def cpu(self, row, server):
        """µs of processor time a message, of all rounds since one has few clock ticks."""
        return 1e6 * sum(self.figures(row, server, "cpu")) / sum(self.figures(row, server, "messages"))

    def steal(self, row):
        return statistics.mean(s["steal"] for samples in self.rows[row].values() for s in samples)

    def judge(self, title, row, goal, met, spread=0.0):
        """The verdict on a goal, and a line for the summary unless it is met."""
        if self.steal(row) > STEAL:
            verdict = f"unclear, steal {self.steal(row):.1%}"
        elif spread > SPREAD:
            verdict = f"unclear, spread {spread:.0%}"
        else:
            verdict = "met" if met else "**short**"
        self.goals[verdict.split(",")[0]] += 1
        if verdict != "met":
            self.missed.append(f"{title}: {verdict}")
        return f", goal {goal}: {verdict}"

    def ratio(self, title, row, server, other, goal):
        ratios = self.ratios(row, server, other)
        if not ratios:
            return "—"
        low, median, high = quartiles(ratios)
        text = f"{median:.2f} ({low:.2f}–{high:.2f})"
        if goal:
            title = f"{title}, {median:.2f} × {NAMES[other]} for {goal}"
            text += self.judge(title, row, goal, median >= goal, (high - low) / median)
        return text


def quartiles(figures):
    if len(figures) == 1:
        return figures * 3
    return statistics.quantiles(figures, n=4, method="inclusive")


def short(number):
    """Three digits that matter."""
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f}"


def table(title, text, head, lines):
    if lines:
        print(f"\n### {title}\n\n{text}\n" if text else f"\n### {title}\n")
        for line in [head, ["---"] * len(head), *lines]:
            print("|", " | ".join(line), "|")


def scale(title):
    """What makes MB/s of large messages a second, and thousands of others."""
    return int(title.split()[0]) * 1.048576 if " MiB" in title else 1e-3


def rate(run, title, row, server):
    rates = run.rates(row, server)
    if not rates:
        return "—"
    low, median, high = (short(rate * scale(title)) for rate in quartiles(list(rates.values())))
    return f"{median} ({low}–{high})"


def tables(run):
    for note in run.notes:
        print(f"- {note}")
    rows = {row: ROWS[row] for row in ROWS if row in run.rows}
    servers = [server for server in COLUMNS if any(server in run.rows[row] for row in rows)]
    names = [NAMES[server] for server in servers]
    others = [server for server in servers if server != "wsecho" and "wsecho" in servers]

    lines, latencies, cpu = [], [], []
    for row, (title, *goals) in rows.items():
        goals = dict(zip(COLUMNS, goals))
        ratios = [run.ratio(title, row, "wsecho", other, goals.get(other)) for other in others]
        rates = [rate(run, title, row, server) for server in servers]
        lines.append([title, run.cores[row], *rates, *ratios])
        columns = []
        for server in servers:
            medians = [run.figures(row, server, figure) for figure in ("p50", "p99", "p99.9")]
            columns.append(" / ".join(short(1e6 * statistics.median(m)) if m else "—" for m in medians))
        latencies.append([title, *columns])
        columns = []
        for server in servers:
            if server not in run.rows[row]:
                columns.append("—")
                continue
            busy = sum(run.figures(row, server, "cpu")) / sum(run.figures(row, server, "seconds"))
            columns.append(f"{short(run.cpu(row, server))} ({busy:.0%})")
        for other in others:
            if other not in run.rows[row] or "wsecho" not in run.rows[row]:
                columns.append("—")
                continue
            more = run.cpu(row, "wsecho") - run.cpu(row, other)
            text = f"{more:+.2f}"
            if (row, other) == (CPU_ROW, "raw"):
                what = f"{title}, {more:+.2f} µs beside raw TCP for {CPU_GOAL}"
                text += run.judge(what, row, CPU_GOAL, more <= CPU_GOAL)
            columns.append(text)
        cpu.append([title, *columns])
    table(
        "Throughput",
        "Thousand messages a second, MB/s from 1 MiB on, thousand connections a second for connect: median\n"
        "and quartiles of the rounds. Ratios are those of each round's pair.",
        ["work", "cores", *names, *(f"wsecho ÷ {NAMES[other]}" for other in others)],
        lines,
    )
    table(
        "Latency",
        "From sending a message to its complete reply, for connect the whole connection: p50 / p99 / p99.9 in\n"
        "µs, medians of the rounds.",
        ["work", *names],
        latencies,
    )
    table(
        "Processor time of the server",
        "µs a message, user and system, and the part of a core that is busy.",
        ["work", *names, *(f"wsecho − {NAMES[other]}" for other in others)],
        cpu,
    )
    variants = []
    for row, server, other, goal in VARIANTS:
        if server in run.rows[row] and other in run.rows[row]:
            title = ROWS[row][0]
            rates = [rate(run, title, row, which) for which in (server, other)]
            what = f"{NAMES[server]} ÷ {NAMES[other]}"
            ratio = run.ratio(f"{title}, {what}", row, server, other, goal)
            variants.append([title, what, *rates, ratio])
    table("Variants", "", ["work", "first ÷ second", "first", "second", "ratio"], variants)
    for row, title, goal in MEMORY:
        lines = []
        for server, [sample, *_] in run.rows[row].items():
            each = f"{sample['resident']:.1f}"
            if server == "wsecho":
                each += run.judge(f"{title}, {each} KiB", row, goal, sample["resident"] <= goal)
            lines.append([NAMES[server], short(sample["messages"]), each, f"{sample['page_tables']:.1f}"])
        table(title, "", ["server", "clients", "resident, KiB each", "page tables, KiB each"], lines)
    lines = []
    for server, samples in run.rows["burst"].items():
        p50, p99, last = (1e3 * max(s[figure] for s in samples) for figure in ("p50", "p99", "max"))
        text = short(last)
        if server == "wsecho":
            text += run.judge(f"clients at once, {text} ms", "burst", BURST_GOAL, last <= BURST_GOAL)
        lines.append([NAMES[server], short(samples[0]["messages"]), short(p50), short(p99), text])
    table(
        "All clients at once",
        "Clients that connect at the same instant: ms until the first reply, in the slowest round.",
        ["server", "clients", "p50", "p99", "last"],
        lines,
    )
    if run.goals:
        counts = ", ".join(f"{count} {verdict.strip('*')}" for verdict, count in run.goals.items())
        print(f"\nGoals: {counts}.")
        print(f"Unclear is a row with more than {STEAL:.0%} steal, or with quartiles of its ratio that are")
        print(f"more than {SPREAD:.0%} of the median apart.")
        print(*(f"\n- {line}" for line in run.missed), sep="")


def ranges(runs):
    """What all runs have in common."""
    for run in runs:
        print(f"- {'; '.join(run.notes)}")
    others = [o for o in COLUMNS if o != "wsecho" and any(o in row for run in runs for row in run.rows.values())]
    lines = []
    for row, (title, *_) in ROWS.items():
        line = [title]
        for other in others:
            medians = [statistics.median(r) for run in runs if (r := run.ratios(row, "wsecho", other))]
            line.append(f"{min(medians):.2f}–{max(medians):.2f}" if medians else "—")
        lines.append(line)
    heads = (f"wsecho ÷ {NAMES[other]}" for other in others)
    table(f"Lowest and highest median of {len(runs)} runs", "", ["work", *heads], lines)


# Colours of medium lightness with dashes of their own, so that no line is known by its colour alone.
STYLES = ["#8c8c8c 7,4", "#d9822b 2,3", "#4098d7 10,3,2,3", "#2e9e6b 14,4", "#d63384 none"]
LEFT, RIGHT, TOP, BOTTOM = 64, 688, 76, 364


def plot(run, path, title, x_title, y_title, ticks, label, unit):
    """A chart with two logarithmic axes of the rows `x_title-NUMBER`. The greys are legible on light and
    on dark pages, since an image does not know which it is on."""
    rows = {int(row.split("-")[1]): row for row in run.rows if row.startswith(f"{x_title}-")}
    if not rows:
        return
    lines = {}
    for server in COLUMNS:
        rates = {x: list(run.rates(row, server).values()) for x, row in rows.items()}
        points = [(x, statistics.median(r) * unit(x)) for x, r in rates.items() if r]
        if points:
            lines[NAMES[server]] = points
    ys = [y for points in lines.values() for _, y in points]
    steps = [step * 10**power for power in range(-3, 9) for step in (1, 2, 5)]
    low = max((s for s in steps if s <= min(ys)), default=steps[0])
    high = min(s for s in steps if s >= max(ys))

    def place(value, low, high, start, end):
        return start + (end - start) * math.log(value / low) / math.log(high / low)

    def across(x):
        return place(x, min(rows), max(rows), LEFT, RIGHT)

    def up(y):
        return place(y, low, high, BOTTOM, TOP)

    svg = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 420" role="img">',
        f"<title>{title}</title>",
        "<style>text{font:13px system-ui,sans-serif;fill:#757e88}.title{font-size:15px;font-weight:600}"
        ".grid{stroke:#757e88;stroke-opacity:.3}.line{fill:none;stroke-width:2.5;stroke-linejoin:round}</style>",
        f'<text class="title" x="{LEFT}" y="22">{title}</text>',
    ]
    for step in (s for s in steps if low <= s <= high):
        svg.append(
            f'<path class="grid" d="M{LEFT} {up(step):.1f}H{RIGHT}"/>'
            f'<text x="{LEFT - 8}" y="{up(step) + 4:.1f}" text-anchor="end">{step:,g}</text>'
        )
    for tick in ticks:
        svg.append(
            f'<path class="grid" d="M{across(tick):.1f} {TOP}V{BOTTOM}"/>'
            f'<text x="{across(tick):.1f}" y="{BOTTOM + 19}" text-anchor="middle">{label(tick)}</text>'
        )
    svg.append(f'<text x="{RIGHT}" y="{BOTTOM + 42}" text-anchor="end">{x_title}</text>')
    svg.append(f'<text x="8" y="68">{y_title}</text>')
    left = LEFT
    for (name, points), style in zip(lines.items(), STYLES):
        colour, dashes = style.split()
        path_style = f'class="line" stroke="{colour}" stroke-dasharray="{dashes}"'
        corners = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
        svg.append(f'<path {path_style} d="M{left} 45h28"/><text x="{left + 34}" y="50">{name}</text>')
        svg.append(f'<polyline {path_style} points="{corners}"/>')
        left += 58 + 7 * len(name)
    path.write_text("\n".join([*svg, "</svg>\n"]))
    print(f"\n{title}, {y_title}: {path.name}\n")
    for name, points in lines.items():
        print(f"- {name}:", ", ".join(f"{label(x)}: {short(y)}" for x, y in points))


def size(number):
    units = [(1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")]
    return next(f"{number // unit} {name}" for unit, name in units if number >= unit)


def main():
    runs = [Run(path) for path in sys.argv[1:]]
    if len(runs) != 1:
        return ranges(runs) if runs else sys.exit(__doc__)
    tables(runs[0])
    folder = pathlib.Path(__file__).parent
    title = "Throughput by number of clients: 20 B, one message in flight each"
    ticks = [10**power for power in range(5)]
    plot(runs[0], folder / "clients.svg", title, "clients", "thousand messages/s", ticks, "{:,}".format, lambda _: 1e-3)
    title = "Throughput by message size: 10 clients, one message in flight each"
    ticks = [1 << power for power in range(4, 25, 2)]
    plot(runs[0], folder / "sizes.svg", title, "size", "MB/s", ticks, size, lambda bytes: bytes / 1e6)


main()
