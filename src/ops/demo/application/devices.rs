//! The device registry of the sample application: a redb database.

use super::Dice;
use super::Link;
use super::Work;
use super::failed;
use crate::error::Result;
use redb::Database;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;
use std::path::Path;
use std::path::PathBuf;

/// The database below the application's directory.
pub(in crate::ops::demo) const FILE: &str = "data/devices.redb";

/// Number of the commit → its link.
const LEDGER: TableDefinition<u64, &[u8; 32]> = TableDefinition::new("ledger");
/// Device → how often it was changed, and what it says.
const DEVICE: TableDefinition<u64, (u64, &str)> = TableDefinition::new("device");

/// Per MiB of the whole application.
const DEVICES_PER_MIB: u64 = 380;
/// Much less than redb takes by itself: the demo is to be a modest guest.
const CACHE_BYTES: usize = 16 << 20;

const ROOMS: [&str; 6] = ["kitchen", "hall", "attic", "cellar", "garden", "office"];
const MODELS: [&str; 4] = ["TH-200", "PLUG-12", "MOTION-3b", "RELAY-x4"];

/// What most devices have alike.
const SETTINGS: &str = "\
    \"capabilities\":[\"report\",\"configure\",\"identify\",\"update\"],\
    \"reporting\":{\"minimum\":30,\"maximum\":3600,\"change\":0.5},\
    \"groups\":[\"all\"],\"on_join\":\"publish\",\"retain\":false,\"disabled\":false";

/// The database of a running application.
pub(super) struct Devices {
    db: Database,
    path: PathBuf,
    count: u64,
}

impl Devices {
    pub(super) fn create(dir: &Path, size_mib: u64, dice: &mut Dice) -> Result<Devices> {
        let path = dir.join(FILE);
        let mut builder = Database::builder();
        let made = builder.set_cache_size(CACHE_BYTES).create(&path);
        let devices = Devices {
            db: made.map_err(failed("open", &path))?,
            path,
            count: DEVICES_PER_MIB * size_mib,
        };
        let filled = devices.fill(dice);
        filled.map_err(failed("fill", &devices.path))?;
        Ok(devices)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn fill(&self, dice: &mut Dice) -> Result<(), redb::Error> {
        let tx = self.db.begin_write()?;
        {
            tx.open_table(LEDGER)?;
            let mut table = tx.open_table(DEVICE)?;
            for id in 0..self.count {
                table.insert(id, (0, record(id, dice).as_str()))?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// Commits one number.
    pub(super) fn commit(&mut self, work: &Work, dice: &mut Dice) -> Result<()> {
        let committed = self.try_commit(work, dice);
        committed.map_err(failed("commit to", &self.path))
    }

    fn try_commit(&mut self, work: &Work, dice: &mut Dice) -> Result<(), redb::Error> {
        let tx = self.db.begin_write()?;
        {
            tx.open_table(LEDGER)?.insert(work.n, &work.link)?;
            let mut table = tx.open_table(DEVICE)?;
            let old = table.get(work.device)?;
            let changes = old.map_or(0, |old| old.value().0);
            let text = record(work.device, dice);
            table.insert(work.device, (changes + 1, text.as_str()))?;
        }
        tx.commit()?;
        Ok(())
    }
}

fn record(id: u64, dice: &mut Dice) -> String {
    let (room, model, serial) = (dice.of(&ROOMS), dice.of(&MODELS), dice.next());
    let (battery, signal, seen) = (dice.below(101), dice.below(80), dice.below(1_000_000));
    let calibration: Vec<String> = (0..24).map(|_| dice.below(1000).to_string()).collect();
    let (firmware, calibration) = (dice.below(30), calibration.join(","));
    let who = format!(r#""id":{id},"room":"{room}","model":"{model}","serial":"{serial:016x}""#);
    let how = format!(r#""battery":{battery},"signal":-{signal},"seen":{seen}"#);
    let what = format!(r#""firmware":"4.2.{firmware}","calibration":[{calibration}]"#);
    format!("{{{who},{how},{what},{SETTINGS}}}")
}

/// Returns the ledger of a copy, or what is wrong with the copy.
pub(super) fn judge(dir: &Path) -> Result<Vec<Link>, String> {
    let judged = try_judge(&dir.join(FILE)).map_err(|error| error.to_string());
    judged
        .and_then(|judged| judged)
        .map_err(|fault| format!("{FILE}: {fault}"))
}

fn try_judge(path: &Path) -> Result<Result<Vec<Link>, String>, redb::Error> {
    let mut builder = Database::builder();
    let mut db = builder.set_cache_size(CACHE_BYTES).open(path)?;
    if !db.check_integrity()? {
        return Ok(Err("check_integrity had to repair it".to_string()));
    }
    let tx = db.begin_read()?;
    let mut ledger: Vec<Link> = Vec::new();
    for row in tx.open_table(LEDGER)?.iter()? {
        let (n, link) = row?;
        if n.value() != ledger.len() as u64 + 1 {
            return Ok(Err(format!("the ledger breaks at commit {}", n.value())));
        }
        ledger.push(*link.value());
    }
    let mut changes = 0;
    for row in tx.open_table(DEVICE)?.iter()? {
        changes += row?.1.value().0;
    }
    Ok(match changes == ledger.len() as u64 {
        true => Ok(ledger),
        false => Err("the devices are not as the ledger has them".to_string()),
    })
}
