#!/usr/bin/env python3
"""Compares what a history of hourly backups, thinned once a day, costs in statekeep and in its peers.

usage: year.py [--days 60] [--every 10] [--kept-only | --peers-kept-only] [--svg FILE] [--rows 8000]
               [--tools statekeep,borg,borg-page,bupstash]

Executables come from PATH or from STATEKEEP, BORG, BUPSTASH; a tool that is not there is left out, and
said so. statekeep needs Debian's libfaketime, because nothing else dates its snapshots. Work goes to
TMPDIR, best in memory. The history is like that of tests/year.rs: two SQLite databases of 8,000 rows each, 4 MB
or less, 16 rows changed an hour (`kv` updates at random, `ts` appends and expires). All tools get the same
closed files, one after another change, and hold the same snapshots after each thinning: statekeep by its own
`prune`, the others by removing what the policy drops, as worked out here (`borg prune` counts otherwise and
would keep more). A row is printed every so many days; bytes are those of all files of the repository.
  borg       zstd,3, its usual chunks of 2 MiB      bupstash   as it comes
  borg-page  zstd,3, chunks of one database page: what someone who knows SQLite would set
With --kept-only nothing is ever thinned: only what the last thinning leaves is backed up. That is what a tool
ends with for which removed snapshots leave nothing behind, and a year of it takes a minute.
With --peers-kept-only statekeep lives through it all, and each peer gets for each row a new repository with only
what is left on that day: as if it never left anything behind. It spares the peers' hours, and favours them.
--svg draws the sizes of all rows.
The newest and the oldest snapshot are restored for each row, and all their rows compared."""
import argparse, concurrent.futures, datetime, hashlib, json, os, random, shutil, sqlite3, subprocess, tempfile, time

ROWS = 8000
START = datetime.datetime(2027, 1, 1, tzinfo=datetime.timezone.utc)
KEEP = {"hourly": (24, "%Y-%m-%d %H"), "daily": (14, "%Y-%m-%d"), "weekly": (8, "%G-%V"), "monthly": (12, "%Y-%m")}
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


def date(hour):
    return START + datetime.timedelta(hours=hour)


def kept(hours):
    """Returns the hours that the policy keeps: the newest of each of the last N periods that have one."""
    keep = set()
    for count, period in KEEP.values():
        newest = {date(hour).strftime(period): hour for hour in sorted(hours)}
        keep.update(sorted(newest.values())[-count:])
    return keep


class History:
    def __init__(self, app):
        self.app, self.random, self.next_row = app, random.Random(1), 0
        os.mkdir(app)
        self.write("kv", "pragma journal_mode=wal; create table kv(k integer primary key, v text, at integer)")
        self.write("ts", "pragma journal_mode=wal; create table ts(id integer primary key, device int, value text,"
                         " at integer); create index ts_device on ts(device, at)")
        self.write("kv", rows=[("insert into kv values(?,?,0)", (row, self.text())) for row in range(ROWS)])
        self.write("ts", rows=[self.sample() for _ in range(ROWS)])

    def write(self, name, script="", rows=()):
        """Changes a database and closes it, which empties and removes its write-ahead log."""
        connection = sqlite3.connect(f"{self.app}/{name}.db")
        connection.executescript(f"pragma synchronous=off; {script}")
        for statement, values in rows:
            connection.execute(statement, values)
        connection.commit()
        connection.close()

    def text(self):
        below = self.random.randrange
        return "".join(f"key_{below(50)} = {below(1000)}\n" for _ in range(32))[:400]

    def sample(self):
        row, value = self.next_row, self.random.randrange(5000)
        self.next_row += 1
        values = (row, self.random.randrange(300), f"{value // 100}.{value % 100:02}", row)
        return "insert into ts values(?,?,?,?)", values

    def step(self):
        update = "update kv set v=? where k=?"
        self.write("kv", rows=[(update, (self.text(), self.random.randrange(ROWS))) for _ in range(ROWS // 500)])
        samples = [self.sample() for _ in range(ROWS // 500)]
        expired = [("delete from ts where id=?", (values[0] - ROWS,)) for _, values in samples]
        self.write("ts", rows=samples + expired)


def content(app):
    """Returns a digest of all rows."""
    digest = hashlib.sha256()
    for name in ("kv", "ts"):
        connection = sqlite3.connect(f"{app}/{name}.db")
        assert connection.execute("pragma quick_check").fetchall() == [("ok",)], f"{app}/{name}.db is damaged"
        for row in connection.execute(f"select * from {name} order by 1"):
            digest.update(repr(row).encode())
        connection.close()
    return digest.hexdigest()


class Tool:
    def __init__(self, exe, work, app):
        self.exe, self.work, self.app, self.repo, self.names = exe, work, app, f"{work}/repo", {}
        self.env = {**os.environ, "TZ": "UTC"}
        os.mkdir(work)

    def run(self, *args, cwd=None, env=None):
        done = subprocess.run([self.exe, *args], cwd=cwd, env=env or self.env, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            raise SystemExit(f"{self.exe} {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def figures(self):
        files = [f"{folder}/{name}" for folder, _, names in os.walk(self.repo) for name in names]
        return sum(os.path.getsize(file) for file in files) / 1e6, len(files)

    def timed_restore(self, hour, expected):
        out = f"{self.work}/out"
        os.mkdir(out)
        began = time.perf_counter()
        app = self.restore(self.names[hour], out)
        seconds = time.perf_counter() - began
        assert content(app) == expected, f"{self.exe}: hour {hour} comes back different"
        shutil.rmtree(out)
        return seconds


class Statekeep(Tool):
    def init(self):
        self.env.update(STATEKEEP_REPO=self.repo, XDG_CONFIG_HOME=f"{self.work}/config",
                        STATEKEEP_CACHE_DIR=f"{self.work}/cache")
        self.at(0, "init")

    def at(self, hour, *args):
        clock = {"LD_PRELOAD": FAKETIME, "FAKETIME": date(hour).strftime("@%Y-%m-%d %H:%M:%S"),
                 "NO_FAKE_STAT": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        return self.run(*args, env={**self.env, **clock})

    def back_up(self, hour):
        self.names[hour] = json.loads(self.at(hour, "backup", "--json", self.app).splitlines()[-1])["snapshot"]

    def thin(self, hour, gone):
        keep = [word for rule, (count, _) in KEEP.items() for word in (f"--keep-{rule}", str(count))]
        self.at(hour, "prune", "--confirm", *keep)
        held = {item["id"] for item in json.loads(self.run("list", "--json"))["items"]}
        assert held == {name for hour, name in self.names.items() if hour not in gone}, "another policy"

    def restore(self, name, out):
        self.run("restore", name, "--to", f"{out}/app", "--confirm")
        return f"{out}/app"


class Borg(Tool):
    chunks = []

    def init(self):
        self.env.update(BORG_PASSPHRASE="x", BORG_BASE_DIR=f"{self.work}/base")
        self.run("init", "-e", "repokey-blake2", self.repo)

    def back_up(self, hour):
        self.names[hour], at = f"h{hour}", date(hour).strftime("%Y-%m-%dT%H:%M:%S")
        self.run("create", "-C", "zstd,3", *self.chunks, "--timestamp", at, f"{self.repo}::h{hour}", self.app)

    def thin(self, hour, gone):
        if gone:
            self.run("delete", self.repo, *(self.names[hour] for hour in gone))
        self.run("compact", self.repo)

    def restore(self, name, out):
        self.run("extract", f"{self.repo}::{name}", cwd=out)
        return out + self.app


class BorgPage(Borg):
    chunks = ["--chunker-params", "fixed,4096"]


class Bupstash(Tool):
    def init(self):
        self.env.update(BUPSTASH_REPOSITORY=self.repo, BUPSTASH_KEY=f"{self.work}/key",
                        XDG_CACHE_HOME=f"{self.work}/cache")
        self.run("init")
        self.run("new-key", "-o", f"{self.work}/key")

    def back_up(self, hour):
        self.names[hour] = self.run("put", self.app).split()[-1]

    def thin(self, hour, gone):
        for hour in gone:
            self.run("rm", f"id={self.names[hour]}")
        self.run("gc")

    def restore(self, name, out):
        self.run("restore", "--into", out, f"id={name}")
        return out


TOOLS = {"statekeep": Statekeep, "borg": Borg, "borg-page": BorgPage, "bupstash": Bupstash}


def find(names, work, app):
    tools = {}
    for name in names:
        program = name.split("-")[0]
        exe = shutil.which(os.environ.get(program.upper(), program))
        if not exe or (name == "statekeep" and not os.path.exists(FAKETIME)):
            print(f"{name}: {'no libfaketime' if exe else 'not installed'}, left out")
            continue
        tools[name] = TOOLS[name](os.path.abspath(exe), f"{work}/{name}", app)
        tools[name].init()
    if not tools:
        raise SystemExit("no tool is there")
    return tools


def left(days):
    """Returns the hours that are left after so many days."""
    hours = set()
    for day in range(days):
        hours = kept(hours | set(range(day * 24, day * 24 + 24)))
    return hours


class Past:
    """Copies of what was backed up, for peers that get it later."""

    def __init__(self, folder, app):
        self.folder, self.app = folder, app
        os.mkdir(folder)

    def keep(self, hour):
        shutil.copytree(self.app, f"{self.folder}/{hour}")

    def drop(self, hour):
        shutil.rmtree(f"{self.folder}/{hour}")

    def replay(self, hours, tools):
        """Backs up these hours into new repositories, then puts back what there is now."""
        for tool in tools:
            shutil.rmtree(tool.work)
            os.mkdir(tool.work)
            tool.names = {}
            tool.init()
        for hour in sorted(hours):
            shutil.rmtree(self.app)
            shutil.copytree(f"{self.folder}/{hour}", self.app)
            for tool in tools:
                tool.back_up(hour)


def draw(path, days, sizes, what="MB of all files of the repository"):
    """Draws megabytes over days: one line for each tool, its name at the end of it."""
    left, top, width, height = 46, 14, 560, 300
    most = max(max(line) for line in sizes.values())
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if most / s <= 8)
    x = lambda day: left + width * day / days[-1]
    y = lambda mb: top + height * (1 - mb / most)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {top + height + 40}"'
           ' font-family="sans-serif" font-size="12">',
           f'<rect width="720" height="{top + height + 40}" fill="#fff"/>']
    for mb in range(0, int(most) + 1, step):
        out.append(f'<path d="M{left} {y(mb):.1f}h{width}" stroke="#ddd"/>'
                   f'<text x="{left - 6}" y="{y(mb) + 4:.1f}" text-anchor="end">{mb}</text>')
    for day in days:
        if day % 60 == 0 or day == days[-1]:
            out.append(f'<text x="{x(day):.1f}" y="{top + height + 18}" text-anchor="middle">{day}</text>')
    out.append(f'<text x="{left + width / 2}" y="{top + height + 34}" text-anchor="middle">days of hourly backups,'
               f' thinned every day; {what}</text>')
    for (name, line), color in zip(sizes.items(), ("#0a6", "#c52", "#36c", "#777")):
        points = " ".join(f"{x(day):.1f},{y(mb):.1f}" for day, mb in zip(days, line))
        out.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>'
                   f'<text x="{left + width + 6}" y="{y(line[-1]) + 4:.1f}" fill="{color}">{name}</text>')
    with open(path, "w") as file:
        file.write("\n".join(out + ["</svg>", ""]))


def row(day, tools, contents):
    oldest, newest, cells, sizes = min(contents), max(contents), [], {}
    for name, tool in tools.items():
        sizes[name], files = tool.figures()
        new, old = (tool.timed_restore(hour, contents[hour]) for hour in (newest, oldest))
        cells.append(f"{sizes[name]:.2f}, {files}, {new:.2f} / {old:.2f}")
    shown = dict(sizes)
    own, peers = sizes.pop("statekeep", None), sizes.values()
    ratio = f"{own / min(peers):.2f}" if own and peers else "-"
    print(f"| {day} | {len(contents)} | {' | '.join(cells)} | {ratio} |", flush=True)
    return shown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--every", type=int, default=10, help="days between rows")
    parser.add_argument("--kept-only", action="store_true", help="back up only what is left at the end")
    parser.add_argument("--peers-kept-only", action="store_true", help="peers never held what is gone")
    parser.add_argument("--svg", help="where to draw the sizes")
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of each database, of which 0.2 %% change an hour")
    options = parser.parse_args()
    globals()["ROWS"] = options.rows
    names = options.tools.split(",")
    if unknown := set(names) - set(TOOLS):
        parser.error(f"no such tool: {', '.join(sorted(unknown))}")
    if min(options.days, options.every) < 1:
        parser.error("--days and --every start at 1")
    with tempfile.TemporaryDirectory() as work, concurrent.futures.ThreadPoolExecutor() as pool:
        app = f"{work}/app"
        tools, history, contents, drawn = find(names, work, app), History(app), {}, {}
        late = [tool for name, tool in tools.items() if options.peers_kept_only and name != "statekeep"]
        early = [tool for tool in tools.values() if tool not in late]
        past = Past(f"{work}/past", app) if late else None
        heads = " | ".join(f"{name}: MB, files, s new / old" for name in tools)
        print(f"| day | snapshots | {heads} | of the smallest peer |\n|{'---|' * (len(tools) + 3)}", flush=True)
        wanted = left(options.days) if options.kept_only else range(options.days * 24)
        for hour in range(options.days * 24):
            if hour:
                history.step()
            if hour not in wanted:
                continue
            contents[hour] = content(app)
            list(pool.map(lambda tool: tool.back_up(hour), early))
            if past:
                past.keep(hour)
            if options.kept_only or hour % 24 != 23:
                continue
            gone = sorted(set(contents) - kept(contents))
            list(pool.map(lambda tool: tool.thin(hour, gone), early))
            for old in gone:
                del contents[old]
                if past:
                    past.drop(old)
            for tool in early:
                tool.names = {old: name for old, name in tool.names.items() if old in contents}
            day = hour // 24 + 1
            if day == 1 or day % options.every == 0 or day == options.days:
                if past:
                    past.replay(contents, late)
                drawn[day] = row(day, tools, contents)
                if options.svg:
                    draw(options.svg, list(drawn), {name: [sizes[name] for sizes in drawn.values()] for name in tools})
        if options.kept_only:
            row(options.days, tools, contents)


if __name__ == "__main__":
    main()
