#!/usr/bin/env python3
"""Makes Markdown tables of a file of samples, and draws the two plots if it has their rows.

    report.py samples.csv           the tables
    report.py a.csv b.csv c.csv     for each row, the lowest and the highest median of several runs
"""

import collections
import csv
import math
import pathlib
import statistics
import sys

# A row is unclear, its goal neither met nor missed, if more than this part ...
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
    "fastwebsockets": "fastwebsockets",
    "uwebsockets": "uWebSockets",
    "wsecho": "wsecho",
    "against": "other wsecho",
    "prefix": "wsecho with its prefix",
    "tungstenite-batch": "tungstenite, one flush a read",
}
SERVERS = list(NAMES)[:6]

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
CPU_ROW, CPU_GOAL = "20b-100", 0.3  # µs a message more than raw TCP
# Row, the two servers that are compared, and the goal.
VARIANTS = [
    ("20b-100", "prefix", "wsecho", 0.95),
    ("pipelined", "prefix", "wsecho", 0.85),
    ("pipelined", "wsecho", "tungstenite-batch", None),
]
# Row, what the client did, and the goal in KiB.
MEMORY = [("idle", "one message", 11.6), ("idle-1m", "1 MiB and a ping interval of silence", 16)]
BURST_GOAL = 900  # ms, less than the second after which a lost SYN is sent again


class Run:
    """The samples of one file: `rows[row][server]` is a list of dictionaries, one per round."""

    def __init__(self, path):
        lines = pathlib.Path(path).read_text().splitlines()
        self.notes = [line[2:] for line in lines if line.startswith("# ")]
        self.rows, self.cores, self.goals = {}, {}, collections.Counter()
        for sample in csv.DictReader(line for line in lines if not line.startswith("# ")):
            row, server = sample.pop("row"), sample.pop("server")
            self.cores[row] = sample.pop("cores")
            samples = self.rows.setdefault(row, {}).setdefault(server, [])
            samples.append({key: float(value) for key, value in sample.items()})

    def figures(self, row, server, figure):
        return [sample[figure] for sample in self.rows[row][server]]

    def rates(self, row, server):
        """Messages per second by round."""
        samples = self.rows.get(row, {}).get(server, [])
        return {sample["round"]: sample["messages"] / sample["seconds"] for sample in samples}

    def ratios(self, row, server, other):
        """Of the pairs of each round: what slows a whole round down slows both."""
        rates, others = self.rates(row, server), self.rates(row, other)
        return [rates[round] / others[round] for round in rates if round in others]

    def cpu(self, row, server, unit):
        """Processor time by `unit`, over all rounds since one has few clock ticks."""
        return sum(self.figures(row, server, "cpu")) / sum(self.figures(row, server, unit))

    def judge(self, row, goal, met, spread=0.0, rounds=MIN_ROUNDS):
        samples = [sample for samples in self.rows.get(row, {}).values() for sample in samples]
        parts = {n: statistics.mean(s[n] for s in samples) for n in ("steal", "others") if samples}
        large = [f"{n} {x:.0%}" for n, x in (parts | {"spread": spread}).items() if x > LIMITS[n]]
        if rounds < MIN_ROUNDS:
            large = ["too few rounds"]
        verdict = "unclear" if large else "met" if met else "**short**"
        self.goals[verdict] += 1
        return f", goal {goal}: {', '.join([verdict, *large])}"

    def ratio(self, row, server, other, goal):
        ratios = self.ratios(row, server, other)
        if not ratios:
            return "—"
        low, median, high = quartiles(ratios)
        text = f"{median:.2f} ({low:.2f}–{high:.2f})"
        if goal:
            spread = (high - low) / median
            text += self.judge(row, goal, median >= goal, spread, len(ratios))
        return text

    def rate(self, row, server):
        """In MB/s for large messages, else in thousands a second."""
        title = ROWS[row][0]
        scale = int(title.split()[0]) * 1.048576 if " MiB" in title else 1e-3
        rates = [rate * scale for rate in self.rates(row, server).values()]
        low, median, high = map(short, quartiles(rates))
        return f"{median} ({low}–{high})"

    def latency(self, row, server):
        figures = (self.figures(row, server, figure) for figure in ("p50", "p99", "p99.9"))
        medians = [1e6 * statistics.median(each) for each in figures]
        return " / ".join(map(short, medians)) if all(medians) else "—"

    def cpu_text(self, row, server):
        busy = self.cpu(row, server, "seconds")
        return f"{short(1e6 * self.cpu(row, server, 'messages'))} ({busy:.0%})"

    def cpu_more(self, row, other):
        more = 1e6 * (self.cpu(row, "wsecho", "messages") - self.cpu(row, other, "messages"))
        has_goal = (row, other) == (CPU_ROW, "raw")
        return f"{more:+.2f}" + (self.judge(row, CPU_GOAL, more <= CPU_GOAL) if has_goal else "")


def quartiles(figures):
    many = len(figures) > 1
    return statistics.quantiles(figures, n=4, method="inclusive") if many else figures * 3


def short(number):
    """Three digits that matter."""
    return f"{number:.{0 if number >= 100 else 1 if number >= 10 else 2}f}"


def table(title, text, head, lines):
    if lines:
        print(f"\n### {title}\n{text}")
        for line in [head, ["---"] * len(head), *lines]:
            print("|", " | ".join(line), "|")


def tables(run):
    print(*(f"- {note}" for note in run.notes), sep="\n")
    rows = [row for row in ROWS if row in run.rows]
    servers = [server for server in SERVERS if any(server in run.rows[row] for row in rows)]
    names = [NAMES[server] for server in servers]
    others = [server for server in servers if server != "wsecho"] if "wsecho" in servers else []

    def lines(text, more=lambda row: []):
        return [
            [ROWS[row][0]]
            + [text(row, server) if server in run.rows[row] else "—" for server in servers]
            + more(row)
            for row in rows
        ]

    def ratios(row):
        goals = dict(zip(SERVERS, ROWS[row][1:]))
        return [run.ratio(row, "wsecho", o, goals.get(o)) for o in others] + [run.cores[row]]

    def cpu_more(row):
        return [
            run.cpu_more(row, other) if {"wsecho", other} <= run.rows[row].keys() else "—"
            for other in cpu_others
        ]

    cpu_others = [other for other in others if other in ("raw", "against")]
    table(
        "Throughput",
        "\nThousand messages a second, MB/s from 1 MiB on, thousand connections a second for connect:"
        "\nthe median and the quartiles of the rounds. The ratios are those of each round's pair.\n",
        ["work", *names, *(f"wsecho ÷ {NAMES[other]}" for other in others), "cores"],
        lines(run.rate, ratios),
    )
    table(
        "Latency",
        "\nFrom sending a message to its complete reply, for connect the whole connection: µs, p50 / p99 /"
        "\np99.9, medians of the rounds.\n",
        ["work", *names],
        lines(run.latency),
    )
    table(
        "Processor time of the server",
        "\nµs a message, user and system, and the part of a core that is busy.\n",
        ["work", *names, *(f"wsecho − {NAMES[other]}" for other in cpu_others)],
        lines(run.cpu_text, cpu_more),
    )
    variants = [
        [
            ROWS[row][0],
            f"{NAMES[server]} ÷ {NAMES[other]}",
            run.rate(row, server),
            run.rate(row, other),
            run.ratio(row, server, other, goal),
        ]
        for row, server, other, goal in VARIANTS
        if {server, other} <= run.rows.get(row, {}).keys()
    ]
    table("Variants", "", ["work", "first ÷ second", "first", "second", "ratio"], variants)
    for row, what, goal in MEMORY:
        lines = []
        for server in sorted(run.rows.get(row, []), key=SERVERS.index):
            sample = run.rows[row][server][0]
            each = f"{sample['resident']:.1f}"
            if server == "wsecho":
                # Memory does not depend on the time that others take.
                each += run.judge(None, goal, float(each) <= goal)
            tables = f"{sample['page_tables']:.1f}"
            lines.append([NAMES[server], short(sample["messages"]), each, tables])
        head = ["server", "clients", "resident, KiB each", "page tables, KiB each"]
        table(f"Memory of a client that is idle after {what}", "", head, lines)
    lines = []
    for server in sorted(run.rows.get("burst", []), key=SERVERS.index):
        figures = (run.figures("burst", server, figure) for figure in ("p50", "p99", "max"))
        p50, p99, last = (1e3 * max(each) for each in figures)
        text = short(last)
        if server == "wsecho":
            text += run.judge("burst", BURST_GOAL, last <= BURST_GOAL)
        clients = short(run.figures("burst", server, "messages")[0])
        lines.append([NAMES[server], clients, short(p50), short(p99), text])
    table(
        "All clients at once",
        "\nms from a connect at the same instant to the first reply, in the slowest of the rounds.\n",
        ["server", "clients", "p50", "p99", "last"],
        lines,
    )
    if run.goals:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in run.goals.items())
        limits = ", ".join(f"{name} over {limit:.0%}" for name, limit in LIMITS.items())
        print(f"\nGoals: {counts}. Unclear: {limits}, or fewer than {MIN_ROUNDS} rounds.")


def ranges(runs):
    for run in runs:
        print(f"- {'; '.join(run.notes)}")
    others = [server for server in SERVERS if server != "wsecho"]
    lines = []
    for row, (title, *_) in ROWS.items():
        ratios = {o: [r for run in runs if (r := run.ratios(row, "wsecho", o))] for o in others}
        medians = [[statistics.median(r) for r in ratios[other]] for other in others]
        if any(medians):
            lines.append([title, *(f"{min(m):.2f}–{max(m):.2f}" if m else "—" for m in medians)])
    head = ["work", *(f"wsecho ÷ {NAMES[other]}" for other in others)]
    table(f"Lowest and highest median of {len(runs)} runs", "", head, lines)


# Colours of medium lightness, each with its own dashes, so that no line is known by its colour alone.
STYLES = ["#8c8c8c 7,4", "#d9822b 2,3", "#4098d7 10,3,2,3", "#2e9e6b 14,4", "#d63384 none"]
# Greys that are legible on light and on dark pages: an image does not know which it is on.
CSS = """text{font:13px system-ui,sans-serif;fill:#757e88}
.title{font-size:15px;font-weight:600}
.grid{stroke:#757e88;stroke-opacity:.3}
.line{fill:none;stroke-width:2.5;stroke-linejoin:round}"""
LEFT, RIGHT, TOP, BOTTOM = 64, 688, 76, 364


def plot(run, name, title, y_title, ticks, label, unit):
    """Draws the rows `NAME-NUMBER` with two logarithmic axes, and prints what it draws."""
    rows = {int(row.split("-")[1]): row for row in run.rows if row.startswith(f"{name}-")}
    if not rows:
        return
    lines = {}
    for server in SERVERS:
        rates = {x: list(run.rates(row, server).values()) for x, row in sorted(rows.items())}
        lines[server] = [(x, statistics.median(r) * unit(x)) for x, r in rates.items() if r]
    ys = [y for points in lines.values() for _, y in points]
    steps = [step * 10**power for power in range(-3, 9) for step in (1, 2, 5)]
    low, high = max(s for s in steps if s <= min(ys)), min(s for s in steps if s >= max(ys))
    steps = [step for step in steps if low <= step <= high]

    def across(x):
        return LEFT + (RIGHT - LEFT) * math.log(x / min(rows)) / math.log(max(rows) / min(rows))

    def up(y):
        return BOTTOM + (TOP - BOTTOM) * math.log(y / low) / math.log(high / low)

    def text(x, y, words, anchor="start", css=""):
        return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'

    svg = ['<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 420" role="img">']
    svg += [f"<title>{title}</title>", f"<style>{CSS}</style>", text(LEFT, 22, title, css="title")]
    for step in steps:
        svg.append(f'<path class="grid" d="M{LEFT} {up(step):.1f}H{RIGHT}"/>')
        svg.append(text(LEFT - 8, up(step) + 4, f"{step:,g}", "end"))
    for tick in ticks:
        svg.append(f'<path class="grid" d="M{across(tick):.1f} {TOP}V{BOTTOM}"/>')
        svg.append(text(across(tick), BOTTOM + 19, label(tick), "middle"))
    svg += [text(RIGHT, BOTTOM + 42, name, "end"), text(8, 68, y_title)]
    print(f"\n{title}, {y_title}:\n")
    left = LEFT
    for (server, points), style in zip(lines.items(), STYLES):
        if points:
            colour, dashes = style.split()
            line = f'class="line" stroke="{colour}" stroke-dasharray="{dashes}"'
            corners = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in points)
            svg.append(f'<path {line} d="M{left} 45h28"/>{text(left + 34, 50, NAMES[server])}')
            svg.append(f'<polyline {line} points="{corners}"/>')
            left += 58 + 7 * len(NAMES[server])
            print(f"- {NAMES[server]}:", ", ".join(f"{label(x)}: {short(y)}" for x, y in points))
    path = pathlib.Path(__file__).with_name(f"{name}.svg")
    path.write_text("\n".join([*svg, "</svg>\n"]))


def size(number):
    units = [(1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")]
    return next(f"{number // unit} {name}" for unit, name in units if number >= unit)


def main():
    runs = [Run(path) for path in sys.argv[1:]]
    if len(runs) != 1:
        return ranges(runs) if runs else sys.exit(__doc__)
    tables(*runs)
    title = "Throughput by number of clients: 20 B, one message in flight each"
    ticks = [10**power for power in range(5)]
    plot(*runs, "clients", title, "thousand messages/s", ticks, "{:,}".format, lambda _: 1e-3)
    title = "Throughput by message size: 10 clients, one message in flight each"
    ticks = [1 << power for power in range(4, 25, 2)]
    plot(*runs, "sizes", title, "MB/s", ticks, size, lambda bytes: bytes / 1e6)


main()
