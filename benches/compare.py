#!/usr/bin/env python3
"""Compares whole commands on data made here: first backup, nothing changed, 1 % changed, restore.

usage: compare.py [STATEKEEP]       restic, borg and bupstash take part if they are installed
Two workloads: 10,000 small configuration files, and one file of 200 MB made of 4 KiB pages of rows.
Tools take turns in one run; look at ratios, not at seconds. Every restore is compared."""
import filecmp, os, random, shutil, subprocess, sys, tempfile, time

STEPS = 3


def make_files(root, seed, share):
    rng = random.Random(seed)
    for number in range(10_000):
        path = f"{root}/{number % 100:02}/service-{number:05}.toml"
        if rng.random() >= share:
            continue
        os.makedirs(os.path.dirname(path), exist_ok=True)
        keys = "".join(f"limit_{k} = {rng.randrange(10_000)}\n" for k in range(rng.randrange(5, 45)))
        with open(path, "w") as file:
            file.write(f"[service]\nname = \"service-{number}\"\nseed = {seed}\n{keys}")


def page(rng, number):
    rows = ""
    while len(rows) < 4000:
        rows += f"{number:06}|agent-{rng.randrange(500)}|{rng.choice(['idle', 'busy', 'done'])}|{rng.random():.9f}\n"
    return rows[:4096].ljust(4096, " ").encode()


def make_pages(root, seed, share):
    rng, path = random.Random(seed), f"{root}/table"
    count = 50_000
    mode = "r+b" if os.path.exists(path) else "wb"
    with open(path, mode) as file:
        for number in range(count):
            if rng.random() < share:
                file.seek(number * 4096)
                file.write(page(rng, number))


def stored(path):
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(path) for f in fs)


class Tool:
    def __init__(self, name, work):
        self.repo, home = f"{work}/repo", f"{work}/home"
        self.env = {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
        self.env |= {"RESTIC_PASSWORD": "x", "BORG_PASSPHRASE": "x", "BUPSTASH_KEY": f"{work}/key"}
        self.commands = getattr(self, name)
        os.makedirs(home)

    def run(self, *args, cwd=None):
        began = time.perf_counter()
        done = subprocess.run(args, env=self.env, cwd=cwd, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(args)}: {done.stderr}")
        self.said = done.stdout
        return time.perf_counter() - began

    def statekeep(self, what, source, out):
        exe = [STATEKEEP, "-r", self.repo]
        if what == "restore":
            return self.run(*exe, "restore", "latest", "--to", out, "--confirm")
        return self.run(*exe, *{"init": ["init"], "backup": ["backup", source]}[what])

    def restic(self, what, source, out):
        exe = ["restic", "-q", "-r", self.repo]
        if what == "restore":
            return self.run(*exe, "restore", "latest", "--target", out)
        return self.run(*exe, *{"init": ["init"], "backup": ["backup", source]}[what])

    def borg(self, what, source, out):
        if what == "init":
            return self.run("borg", "init", "-e", "repokey-blake2", self.repo)
        if what == "backup":
            self.last = f"{self.repo}::{time.time_ns()}"
            return self.run("borg", "create", "-C", "zstd,3", self.last, source)
        os.makedirs(out)
        return self.run("borg", "extract", self.last, cwd=out)

    def bupstash(self, what, source, out):
        if what == "init":
            self.run("bupstash", "new-key", "-o", self.env["BUPSTASH_KEY"])
            return self.run("bupstash", "init", "-r", self.repo)
        if what == "backup":
            taken = self.run("bupstash", "put", "-r", self.repo, source)
            self.last = self.said.split()[-1]
            return taken
        os.makedirs(out)
        return self.run("bupstash", "restore", "-r", self.repo, "--into", out, f"id={self.last}")


def measure(tool, make, source, work):
    make(source, 0, 1.0)
    tool.commands("init", source, None)
    time.sleep(2.1)
    row, size = [], stored(tool.repo)
    for step in range(-1, STEPS + 1):
        if step > 0:
            make(source, step, 0.01)
        seconds = tool.commands("backup", source, None)
        now = stored(tool.repo)
        row.append((seconds, now - size))
        size = now
    restore = tool.commands("restore", source, f"{work}/out")
    names = [os.path.relpath(os.path.join(d, f), source) for d, _, fs in os.walk(source) for f in fs]
    out = f"{work}/out" if os.path.exists(f"{work}/out/{names[0]}") else f"{work}/out{source}"
    wrong = filecmp.cmpfiles(source, out, names, shallow=False)[1:]
    first, same, steps = row[0], row[1], row[2:]
    mean = [sum(values) / len(steps) for values in zip(*steps)]
    return first, same, mean, restore, "same" if wrong == ([], []) else "DIFFERS"


STATEKEEP = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/statekeep")
for title, make in [("10,000 small files", make_files), ("200 MB of pages", make_pages)]:
    print(f"{title:20} {'first':>18} {'unchanged':>18} {'1 % changed':>18} {'restore':>9}")
    for name in ["restic", "borg", "bupstash", "statekeep"]:
        if name != "statekeep" and not shutil.which(name):
            print(f"{name:20} not installed")
            continue
        work = tempfile.mkdtemp(prefix="compare-")
        try:
            os.makedirs(f"{work}/source")
            first, same, mean, restore, verdict = measure(Tool(name, work), make, f"{work}/source", work)
            cells = "".join(f" {s:7.3f} s {b / 1e6:6.3f} MB" for s, b in (first, same, mean))
            print(f"{name:20}{cells} {restore:7.2f} s {verdict}", flush=True)
        finally:
            shutil.rmtree(work)
