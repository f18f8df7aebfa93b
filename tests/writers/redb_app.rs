//! The application over redb.

use super::ACCOUNTS;
use super::Habit;
use super::Spec;
use super::link;
use super::weight;
use crate::support::Seeded;
use redb::Database;
use redb::Durability;
use redb::MultimapTableDefinition;
use redb::ReadableDatabase;
use redb::ReadableMultimapTable;
use redb::ReadableTable;
use redb::TableDefinition;
use redb::WriteTransaction;

const LEDGER: TableDefinition<u64, &[u8]> = TableDefinition::new("ledger");
const ACCOUNT: TableDefinition<u64, u64> = TableDefinition::new("account");
const ITEM: TableDefinition<u64, &[u8]> = TableDefinition::new("item");
const GROUP: MultimapTableDefinition<u64, u64> = MultimapTableDefinition::new("group");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

type Failure = Box<dyn std::error::Error>;

pub(crate) struct RedbApp {
    db: Database,
    spec: Spec,
    random: Seeded,
    digest: u64,
}

impl RedbApp {
    pub(crate) fn open(spec: &Spec) -> RedbApp {
        let mut builder = Database::builder();
        let db = builder.set_cache_size(4 << 20).create(&spec.path).unwrap();
        let mut app = RedbApp {
            db,
            spec: spec.clone(),
            random: Seeded::new(spec.seed),
            digest: 0,
        };
        app.create().unwrap();
        app.random = Seeded::new(spec.seed ^ (app.last() << 20));
        app
    }

    fn create(&mut self) -> Result<(), Failure> {
        let tx = self.db.begin_write()?;
        if tx.list_tables()?.next().is_some() {
            return Ok(tx.abort()?);
        }
        tx.open_multimap_table(GROUP)?;
        for id in 0..ACCOUNTS {
            tx.open_table(ACCOUNT)?.insert(id, 1000)?;
            self.exchange(0, account_weight(id, 1000));
        }
        for id in (0..self.spec.rows).step_by(2) {
            self.put_item(&tx, id)?;
        }
        self.append(&tx, 0, &[])?;
        Ok(tx.commit()?)
    }

    pub(crate) fn last(&self) -> u64 {
        let tx = self.db.begin_read().unwrap();
        let ledger = tx.open_table(LEDGER).unwrap();
        ledger.last().unwrap().unwrap().0.value()
    }

    /// Commits the next number. Returns it, and whether it is durable.
    pub(crate) fn commit(&mut self, attempt: &mut dyn FnMut(u64)) -> (u64, bool) {
        self.try_commit(attempt).unwrap()
    }

    fn try_commit(&mut self, attempt: &mut dyn FnMut(u64)) -> Result<(u64, bool), Failure> {
        let mut tx = self.db.begin_write()?;
        tx.set_two_phase_commit(self.spec.has(Habit::TwoPhase));
        tx.set_quick_repair(self.spec.has(Habit::QuickRepair));
        let durable = !self.spec.has(Habit::Soft) || self.random.below(3) > 0;
        if !durable {
            tx.set_durability(Durability::None)?;
        } else if self.spec.has(Habit::Savepoints) && self.random.below(15) == 0 {
            self.save(&tx)?;
        }
        let (n, chain) = {
            let ledger = tx.open_table(LEDGER)?;
            let (n, line) = ledger.last()?.ok_or("the ledger is empty")?;
            let (chain, digest) = parts(line.value());
            self.digest = digest;
            (n.value() + 1, chain)
        };
        self.work(&tx)?;
        self.append(&tx, n, &chain)?;
        attempt(n);
        tx.commit()?;
        Ok((n, durable))
    }

    /// Keeps at most three savepoints.
    fn save(&mut self, tx: &WriteTransaction) -> Result<(), Failure> {
        let held: Vec<u64> = tx.list_persistent_savepoints()?.collect();
        if held.len() >= 3 {
            let at = self.random.below(held.len() as u64) as usize;
            tx.delete_persistent_savepoint(held[at])?;
        }
        tx.persistent_savepoint()?;
        Ok(())
    }

    fn append(&self, tx: &WriteTransaction, n: u64, previous: &[u8]) -> Result<(), Failure> {
        let mut line = link(previous, n, self.digest);
        line.extend(self.digest.to_le_bytes());
        tx.open_table(LEDGER)?.insert(n, line.as_slice())?;
        tx.open_table(META)?.insert("newest", n)?;
        Ok(())
    }

    fn exchange(&mut self, old: u64, new: u64) {
        self.digest = self.digest.wrapping_sub(old).wrapping_add(new);
    }

    fn work(&mut self, tx: &WriteTransaction) -> Result<(), Failure> {
        let from = self.random.below(ACCOUNTS);
        let to = (from + 1 + self.random.below(ACCOUNTS - 1)) % ACCOUNTS;
        {
            let mut accounts = tx.open_table(ACCOUNT)?;
            let amount = self.random.below(30);
            let balance = |id| Ok::<u64, Failure>(accounts.get(id)?.ok_or("no account")?.value());
            let (rich, poor) = (balance(from)?, balance(to)?);
            let amount = amount.min(rich);
            for (id, old, new) in [(from, rich, rich - amount), (to, poor, poor + amount)] {
                accounts.insert(id, new)?;
                self.exchange(account_weight(id, old), account_weight(id, new));
            }
        }
        for _ in 0..=self.random.below(5) {
            let id = self.random.below(self.spec.rows);
            match self.random.below(3) {
                0 => self.remove_item(tx, id)?,
                1 => self.put_item(tx, id)?,
                _ => self.change_group(tx, id)?,
            }
        }
        Ok(())
    }

    fn remove_item(&mut self, tx: &WriteTransaction, id: u64) -> Result<(), Failure> {
        let mut items = tx.open_table(ITEM)?;
        let old = items.remove(id)?.map(|body| item_weight(id, body.value()));
        self.exchange(old.unwrap_or(0), 0);
        Ok(())
    }

    fn put_item(&mut self, tx: &WriteTransaction, id: u64) -> Result<(), Failure> {
        self.remove_item(tx, id)?;
        let most = match self.random.below(40) {
            0 => 40_000,
            _ => 1600,
        };
        let len = self.random.below(most) as usize;
        let body = self.random.bytes(len);
        tx.open_table(ITEM)?.insert(id, body.as_slice())?;
        self.exchange(0, item_weight(id, &body));
        Ok(())
    }

    /// Few keys with many values each: their values have trees of their own.
    fn change_group(&mut self, tx: &WriteTransaction, id: u64) -> Result<(), Failure> {
        let key = id % 7;
        let mut groups = tx.open_multimap_table(GROUP)?;
        for value in id..id + 8 {
            let held = groups.insert(key, value)?;
            if !held {
                self.exchange(0, group_weight(key, value));
            } else if value % 3 == 0 {
                groups.remove(key, value)?;
                self.exchange(group_weight(key, value), 0);
            }
        }
        Ok(())
    }
}

fn parts(line: &[u8]) -> (Vec<u8>, u64) {
    let (chain, digest) = line.split_at(line.len() - 8);
    (
        chain.to_vec(),
        u64::from_le_bytes(digest.try_into().unwrap()),
    )
}

fn account_weight(id: u64, balance: u64) -> u64 {
    weight("account", id, &[&balance.to_le_bytes()])
}

fn item_weight(id: u64, body: &[u8]) -> u64 {
    weight("item", id, &[body])
}

fn group_weight(key: u64, value: u64) -> u64 {
    weight("group", key, &[&value.to_le_bytes()])
}

/// What a database holds, as the oracle judges it.
pub(crate) struct Ledger {
    pub(crate) lines: Vec<(u64, Vec<u8>, u64)>,
    pub(crate) newest: u64,
    pub(crate) money: u64,
    /// The sum over all rows, computed again.
    pub(crate) digest: u64,
}

/// Reads everything.
pub(crate) fn ledger_of(tx: &redb::ReadTransaction) -> Result<Ledger, Failure> {
    let (mut lines, mut money, mut digest) = (vec![], 0u64, 0u64);
    for line in tx.open_table(LEDGER)?.iter()? {
        let (n, line) = line?;
        let (chain, digest) = parts(line.value());
        lines.push((n.value(), chain, digest));
    }
    let mut add = |weight: u64| digest = digest.wrapping_add(weight);
    for row in tx.open_table(ACCOUNT)?.iter()? {
        let (id, balance) = row?;
        money += balance.value();
        add(account_weight(id.value(), balance.value()));
    }
    for row in tx.open_table(ITEM)?.iter()? {
        let (id, body) = row?;
        add(item_weight(id.value(), body.value()));
    }
    for row in tx.open_multimap_table(GROUP)?.iter()? {
        let (key, values) = row?;
        for value in values {
            add(group_weight(key.value(), value?.value()));
        }
    }
    let meta = tx.open_table(META)?;
    let newest = meta.get("newest")?.ok_or("no newest number")?.value();
    Ok(Ledger {
        lines,
        newest,
        money,
        digest,
    })
}
