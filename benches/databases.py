#!/usr/bin/env python3
"""What backing up live databases costs, step by step, for several ways of cutting and encoding them.

usage: databases.py [--only kv,ts] [--megabytes 64] [--steps 30] [--vacuums 2] [--after 2] [--variant NAME=COMMAND]...

Builds first: cargo build --release --bin statekeep --example redb_steps
Every workload changes one database, and after each change every variant backs it up into a plain
repository of its own; bytes are what the repository grew by, all files counted. A variant is a command
line that `backup` arguments are appended to; the default ones are the two ways to cut SQLite databases:
  --variant 'groups=target/release/statekeep' --variant 'content=target/release/statekeep --database-cuts content'
Words before the first option are the program (`env A=1 PROGRAM` works), so builds with other constants
can be compared on the same data. Workloads, each step changing 1 % of the rows:
  kv      updates at random              ts      appends, and expires the oldest
  graph   inserts with blobs             fts     replaces documents under an FTS5 index
  redb    updates in 20 commits, one in ten inserts
  events  kv with: mass delete, VACUUM, a new column and an index, a table dropped, each among steps
Then --vacuums times: VACUUM and --after more steps. Times are for ratios within one run only."""
import argparse, ctypes, json, os, random, shlex, shutil, sqlite3, struct, subprocess, sys, tempfile, time

WORDS = [f"w{i * 7919 % 99991:x}" for i in range(5000)]
STATES = ["idle", "running", "failed", "done"]
ATTRIBUTES = ["temperature", "humidity", "power", "state", "battery"]


def text(rng, count):
    return " ".join(rng.choice(WORDS) for _ in range(count))


class Kv:
    schema = "create table kv(k text primary key, v text, updated integer); create index kv_updated on kv(updated)"

    def add(self, c, rng, first, count):
        def row(i):
            agent, state, tokens = f"agent-{rng.randrange(500)}", rng.choice(STATES), rng.randrange(100000)
            note, at = text(rng, rng.randrange(10, 60)), 1760000000 + rng.randrange(10**7)
            value = {"id": i, "agent": agent, "state": state, "tokens": tokens, "updated": at, "note": note}
            return f"session/{i:09d}", json.dumps(value), 1760000000 + rng.randrange(10**7)
        c.executemany("insert into kv(k,v,updated) values(?,?,?)", map(row, range(first, first + count)))

    def step(self, c, rng, number):
        rows, = c.execute("select count(*) from kv").fetchone()
        for i in rng.sample(range(rows), rows // 100):
            at = 1770000000 + number * 3600 + rng.randrange(3600)
            c.execute("update kv set v=json_set(v,'$.state',?,'$.tokens',?,'$.updated',?),updated=? where k=?",
                      (rng.choice(STATES), rng.randrange(100000), at, at, f"session/{i:09d}"))


class Ts:
    schema = """create table history(id integer primary key, device text, attr text, value text, ts integer);
                create index history_device on history(device,ts)"""

    def add(self, c, rng, first, count):
        rows = ((f"dev-{rng.randrange(300):04d}", rng.choice(ATTRIBUTES), f"{rng.gauss(20, 5):.2f}", 1700000000 + i)
                for i in range(first, first + count))
        c.executemany("insert into history(device,attr,value,ts) values(?,?,?,?)", rows)

    def step(self, c, rng, number):
        rows, last = c.execute("select count(*),max(ts) from history").fetchone()
        self.add(c, rng, last + 1 - 1700000000, rows // 100)
        c.execute("delete from history where id in (select id from history order by id limit ?)", (rows // 100,))


class Graph:
    schema = """create table nodes(id integer primary key, template text, label text, props text, emb blob);
                create table edges(src int, dst int, kind text, weight real);
                create index edges_src on edges(src); create index edges_dst on edges(dst)"""

    def add(self, c, rng, first, count):
        def node(i):
            blob = struct.pack("<384f", *[rng.gauss(0, 1) for _ in range(384)])
            kind = rng.choice("person place event claim source".split())
            return i, kind, text(rng, 3), json.dumps({"summary": text(rng, 40)}), blob
        def edge():
            ends = rng.randrange(first + count), rng.randrange(first + count)
            return *ends, rng.choice("knows cites partof".split()), rng.random()
        c.executemany("insert into nodes values(?,?,?,?,?)", map(node, range(first, first + count)))
        c.executemany("insert into edges values(?,?,?,?)", (edge() for _ in range(4 * count)))

    def step(self, c, rng, number):
        last, = c.execute("select max(id) from nodes").fetchone()
        self.add(c, rng, last + 1, last // 100)


class Fts:
    schema = "create virtual table doc using fts5(title, body)"

    def add(self, c, rng, first, count):
        rows = ((i, text(rng, 5), text(rng, rng.randrange(20, 120))) for i in range(first, first + count))
        c.executemany("insert into doc(rowid,title,body) values(?,?,?)", rows)

    def step(self, c, rng, number):
        rows, = c.execute("select max(rowid) from doc").fetchone()
        for i in rng.sample(range(rows), rows // 100):
            c.execute("update doc set body=? where rowid=?", (text(rng, rng.randrange(20, 120)), i))


WORKLOADS = {"kv": Kv, "ts": Ts, "graph": Graph, "fts": Fts, "events": Kv}
EVENTS = [
    ("mass delete", "delete from kv where rowid * 2654435761 % 10 < 3"),
    ("column, index", "alter table kv add column owner text default 'none'; "
                      "create index kv_agent on kv(json_extract(v,'$.agent'))"),
    ("drop index", "drop index kv_updated"),
]


class Database:
    """A SQLite database in a directory of its own, closed and checkpointed after every change."""

    def __init__(self, kind, path, megabytes):
        self.workload, self.path, self.number = WORKLOADS[kind](), path, 0
        batch, rows = 5000, 0
        self.change(lambda c: c.executescript(self.workload.schema))
        while os.path.getsize(path) < megabytes * 1e6:
            self.change(lambda c: self.workload.add(c, random.Random(rows), rows, batch))
            rows += batch

    def change(self, act):
        c = sqlite3.connect(self.path, isolation_level=None)
        c.execute("pragma journal_mode=wal")
        c.execute("pragma synchronous=off")
        c.execute("begin")
        act(c)
        if c.in_transaction:
            c.execute("commit")
        c.execute("pragma wal_checkpoint(truncate)")
        c.close()

    def step(self):
        self.number += 1
        self.change(lambda c: self.workload.step(c, random.Random(1000 + self.number), self.number))

    def run(self, sql):
        self.change(lambda c: c.executescript(sql))


class Redb:
    def __init__(self, program, path, megabytes):
        self.command = [program, path]
        subprocess.run([*self.command, "create", str(int(megabytes * 1e6))], check=True)
        self.number = 0

    def step(self):
        self.number += 1
        subprocess.run([*self.command, "step", str(self.number)], check=True)


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def unfold(frame, plain_bytes):
    zstd = ctypes.CDLL("libzstd.so.1")
    zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(plain_bytes)
    assert zstd.ZSTD_decompress(out, plain_bytes, frame, len(frame)) == plain_bytes
    return out.raw


def data_records(path):
    """Yields (codec, height, plain bytes, stored bytes) of the data chunks in a plain pack (docs/format.md)."""
    with open(path, "rb") as file:
        body = file.read()[64:]
    plain = b"".join(body[at:at + 65552][:-16] for at in range(0, len(body), 65552))
    _, table_bytes, columns_bytes = struct.unpack("<QII", plain[-16:])
    table = plain[-16 - table_bytes:-16]
    rows, at = varint(table, 0)
    bases, at = varint(table, at)
    columns = unfold(table[at + 32 * rows + 8 * bases:], columns_bytes)
    at, lengths = 3 * rows, []
    for _ in range(2 * rows):
        value, at = varint(columns, at)
        lengths.append(value)
    for row in range(rows):
        # What is known of the databases is a data chunk as well, a short one.
        if columns[row] >> 4 & 7 == 0 and lengths[row] >= 4096:
            yield columns[row] & 7, columns[rows + row], lengths[row], lengths[rows + row]


def files_in(path):
    return {os.path.join(d, f): os.path.getsize(os.path.join(d, f)) for d, _, fs in os.walk(path) for f in fs}


class Variant:
    def __init__(self, name, command, work):
        self.name, self.repo = name, f"{work}/{name}"
        words = shlex.split(command)
        options = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
        self.program, self.options = words[:options], words[options:]
        home = f"{work}/home-{name}"
        self.env = {**os.environ, "HOME": home, "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home}
        # One repository for all, copied: where runs begin depends on ids, and so on its key.
        if not os.path.exists(f"{work}/empty"):
            self.repo = f"{work}/empty"
            self.run("init", "--plain")
            self.repo = f"{work}/{name}"
        shutil.copytree(f"{work}/empty", self.repo)
        self.steps, self.depth = {}, 0

    def run(self, *args):
        began = time.perf_counter()
        done = subprocess.run([*self.program, "-r", self.repo, *args], env=self.env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{self.name}: {' '.join(args)}: {done.stderr}")
        return time.perf_counter() - began

    def backup(self, label, source):
        before = files_in(self.repo)
        seconds = self.run("backup", *self.options, source)
        after = files_in(self.repo)
        new = [path for path in after if path not in before and "/packs/" in path]
        records = [record for path in new for record in data_records(path)]
        self.depth = max([self.depth, *(height for _, height, _, _ in records)])
        grown = sum(after.values()) - sum(before.values())
        row = len(records), grown, grown - sum(stored for *_, stored in records), seconds
        self.steps.setdefault(label, []).append(row)

    def restore_seconds(self, reference, out):
        best = 1e9
        for _ in range(3):
            shutil.rmtree(out, ignore_errors=True)
            best = min(best, self.run("restore", reference, "--to", out, "--confirm"))
        shutil.rmtree(out)
        return best


def play(database, kind, options):
    """Changes the database and says, after each change, what it was."""
    yield "first"
    for i in range(options.steps):
        database.step()
        yield "step"
        if kind == "events" and i % 3 == 2 and i // 3 < len(EVENTS):
            label, sql = EVENTS[i // 3]
            database.run(sql)
            yield label
    for _ in range(options.vacuums if kind != "redb" else 0):
        database.run("vacuum")
        yield "VACUUM"
        for _ in range(options.after):
            database.step()
            yield "step after"


def measure(kind, options):
    work = tempfile.mkdtemp(prefix="databases-", dir=options.work)
    try:
        source = f"{work}/source"
        os.makedirs(source)
        if kind == "redb":
            database = Redb(os.path.abspath(options.redb), f"{source}/app.redb", options.megabytes)
        else:
            database = Database(kind, f"{source}/app.db", options.megabytes)
        variants = [Variant(*spec.split("=", 1), work) for spec in options.variant]
        if kind == "redb" and not options.all:
            variants = [variant for variant in variants if not variant.options]
        for label in play(database, kind, options):
            for variant in variants:
                variant.backup(label, source)
        for variant in variants:
            lines = list(variant.steps.items())
            if options.steps > 30:
                lines.insert(1, ("step 1-30", variant.steps["step"][:30]))
            for label, rows in lines:
                chunks, grown, over, seconds = (sum(column) / len(rows) for column in zip(*rows))
                each = over / chunks if chunks else 0
                print(f"{kind:7}{variant.name:12}{label:14}{len(rows):4} x {grown:13,.0f} B {chunks:7.1f} chunks"
                      f"{each:6.0f} B over {seconds:7.3f} s", flush=True)
            if options.restore:
                fresh = Variant(f"fresh-{variant.name}", " ".join(variant.program), work)
                fresh.backup("first", source)
                deep, whole = (v.restore_seconds("latest", f"{work}/out") for v in (variant, fresh))
                variant.run("check", "--read-data")
                print(f"{kind:7}{variant.name:12}restore at depth {variant.depth}: {deep / whole:.2f} x fresh", flush=True)
    finally:
        shutil.rmtree(work)


def main():
    built = "target/release/statekeep"
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--only", default="kv,ts,graph,fts,events,redb")
    parser.add_argument("--megabytes", type=float, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--vacuums", type=int, default=2)
    parser.add_argument("--after", type=int, default=2, help="steps after each VACUUM")
    parser.add_argument("--variant", action="append")
    parser.add_argument("--redb", default="target/release/examples/redb_steps")
    parser.add_argument("--restore", action="store_true", help="restore, compare with a fresh backup, check")
    parser.add_argument("--all", action="store_true", help="all variants for redb too")
    parser.add_argument("--work", help="where temporary files go")
    options = parser.parse_args()
    options.variant = options.variant or [f"groups={built}", f"content={built} --database-cuts content"]
    for kind in options.only.split(","):
        measure(kind, options)


if __name__ == "__main__":
    main()
