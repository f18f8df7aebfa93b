#!/usr/bin/env python3
"""Draws docs/step.svg from the figures in docs/benchmarks.md; --check fails if it would differ."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE = "| one file of 200 MB, in pages |"
STEP = re.compile(r"([0-9.]+) s, ([0-9.]+) (MB|kB)")
UNITS = {"MB": 1.0, "kB": 0.001}


def figures():
    """Returns the name of each tool and the MB its third column says."""
    lines = (ROOT / "docs/benchmarks.md").read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(TABLE))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        _, size, unit = STEP.search(cells[3]).groups()
        rows.append((cells[0], float(size) * UNITS[unit]))
    return rows


def svg(rows):
    """Bars from zero, all to one scale."""
    most, left, width, step = max(mb for _, mb in rows), 120, 420, 28
    height = 48 + step * len(rows)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" width="640" '
        f'height="{height}" font-family="sans-serif" font-size="14">',
        f'<rect width="640" height="{height}" fill="#ffffff"/>',
        '<text x="10" y="24" fill="#222222">Stored per backup when 1 % of the pages of one '
        "200 MB file changed</text>",
    ]
    for n, (name, mb) in enumerate(rows):
        y = 40 + step * n
        colour = "#2f6f4f" if name == "statekeep" else "#9aa5b1"
        bar = max(width * mb / most, 1)
        out += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end" fill="#222222">{name}</text>',
            f'<rect x="{left}" y="{y}" width="{bar:.1f}" height="20" fill="{colour}"/>',
            f'<text x="{left + bar + 6:.1f}" y="{y + 15}" fill="#222222">{mb:.1f} MB</text>',
        ]
    return "\n".join(out + ["</svg>", ""])


def main():
    path, drawn = ROOT / "docs/step.svg", svg(figures())
    if "--check" in sys.argv[1:]:
        sys.exit(None if path.read_text() == drawn else f"{path} is old: run {sys.argv[0]}")
    path.write_text(drawn)


main()
