//! The rules of the sample application: TOML files, one of which is edited now and then.

use super::Dice;
use crate::error::Error;
use crate::error::Result;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

const FOLDER: &str = "config/rules";
/// Files below the folder.
pub(in crate::ops::demo) const RULES: u64 = 40;
const KEYS: [&str; 3] = ["trigger", "condition", "action"];

/// The rules of a running application.
pub(super) struct Rules {
    folder: PathBuf,
}

impl Rules {
    pub(super) fn create(dir: &Path, dice: &mut Dice) -> Result<Rules> {
        let folder = dir.join(FOLDER);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let rules = Rules { folder };
        for number in 0..RULES {
            rules.write(number, 0, dice)?;
        }
        Ok(rules)
    }

    /// Edits one of the rules, the way editors do: beside it, then in its place.
    pub(super) fn edit(&mut self, revision: u64, dice: &mut Dice) -> Result<()> {
        let number = dice.below(RULES);
        self.write(number, revision, dice)
    }

    fn write(&self, number: u64, revision: u64, dice: &mut Dice) -> Result<()> {
        let path = self.folder.join(format!("rule-{number:02}.toml"));
        let temp = path.with_extension("new");
        let text = rule(number, revision, dice);
        fs::write(&temp, text).map_err(Error::io("write", &temp))?;
        fs::rename(&temp, &path).map_err(Error::io("rename", &path))
    }
}

fn rule(number: u64, revision: u64, dice: &mut Dice) -> String {
    let threshold = dice.below(400) as f64 / 10.0;
    let (from, to) = (dice.below(24), dice.below(24));
    format!(
        r#"name = "rule {number}"
revision = {revision}
enabled = true

[trigger]
device = {number}
kind = "temperature"
above = {threshold:.1}

[condition]
from = "{from:02}:00"
to = "{to:02}:30"

[action]
device = {}
set = "on"
"#,
        number + 100
    )
}

/// Returns how many rules a copy has, or what is wrong with one of them.
pub(super) fn judge(dir: &Path) -> Result<u64, String> {
    for number in 0..RULES {
        let name = format!("{FOLDER}/rule-{number:02}.toml");
        let text = fs::read_to_string(dir.join(&name)).map_err(|e| format!("{name}: {e}"))?;
        let rule: toml::Table = text.parse().map_err(|e| format!("{name}: {e}"))?;
        if let Some(key) = KEYS.iter().find(|key| !rule.contains_key(**key)) {
            return Err(format!("{name}: it has no {key}"));
        }
    }
    Ok(RULES)
}
