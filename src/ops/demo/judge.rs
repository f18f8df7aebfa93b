//! What comes back from a backup and from the archive beside it, judged by the application itself.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use crate::ops::demo::DemoOptions;
use crate::ops::demo::Judged;
use crate::ops::demo::Origin;
use crate::ops::demo::Places;
use crate::ops::demo::Role;
use crate::ops::demo::Round;
use crate::ops::demo::Step;
use crate::ops::demo::archive;
use crate::ops::restore;
use crate::ops::restore::RestoreOptions;
use crate::repo::Repo;
use crate::repo::chunks::Chunks;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

/// Judges the last round and one of the others.
pub(super) fn judge_some(
    cx: &Context,
    options: &DemoOptions<'_>,
    places: &Places,
    repo: &Repo,
    rounds: &[Round],
    tell: &mut dyn FnMut(Step<'_>) -> Result<()>,
) -> Result<Vec<Judged>> {
    let Some((last, earlier)) = rounds.split_last() else {
        return Ok(Vec::new());
    };
    let random = u64::from_le_bytes(cx.random_bytes()?);
    let chosen = earlier.get((random % earlier.len().max(1) as u64) as usize);
    let mut all = Vec::new();
    for origin in [Origin::Snapshot, Origin::Archive] {
        for round in chosen.into_iter().chain([last]) {
            let judged = match origin {
                Origin::Snapshot => judge_snapshot(cx, options, places, repo, round)?,
                Origin::Archive => judge_archive(cx, options, places, round)?,
            };
            tell(Step::Judged(&judged))?;
            all.push(judged);
        }
    }
    Ok(all)
}

fn judge_snapshot(
    cx: &Context,
    options: &DemoOptions<'_>,
    places: &Places,
    repo: &Repo,
    round: &Round,
) -> Result<Judged> {
    let target = places.restored.join(round.number.to_string());
    let began = Instant::now();
    let state = repo.read_state(cx)?;
    let chunks = Chunks::open(repo, &state.packs)?;
    let wanted = RestoreOptions::new(&target);
    let plan = restore::plan(cx, &chunks, &round.manifest, &wanted)?;
    let report = restore::apply(cx, &chunks, &round.manifest, &wanted, &plan)?;
    let time = began.elapsed();
    let mut judged = judge(options, Origin::Snapshot, round, &target)?;
    judged.time = time;
    for problem in &report.failures.sample {
        let path = String::from_utf8_lossy(&problem.path).into_owned();
        judged.faults.push(format!("{path}: {}", problem.message));
    }
    if plan.lost.count > 0 {
        judged
            .faults
            .push("the repository has lost some of it".to_string());
    }
    Ok(judged)
}

fn judge_archive(
    cx: &Context,
    options: &DemoOptions<'_>,
    places: &Places,
    round: &Round,
) -> Result<Judged> {
    let target = places.restored.join(format!("{}-of-archive", round.number));
    fs::create_dir(&target).map_err(Error::io("create", &target))?;
    let began = Instant::now();
    let archive = places.archives.join(format!("{}.tar.gz", round.number));
    archive::unpack(cx, &archive, &target)?;
    let time = began.elapsed();
    let mut judged = judge(options, Origin::Archive, round, &target.join(archive::ROOT))?;
    judged.time = time;
    // Of use to nobody, and as large as the application.
    fs::remove_dir_all(&target).map_err(Error::io("remove", &target))?;
    Ok(judged)
}

fn judge(options: &DemoOptions<'_>, origin: Origin, round: &Round, dir: &Path) -> Result<Judged> {
    let mut command = (options.application)(Role::Judge, dir);
    // A database engine that meets damage may say so on its way down.
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.map_err(Error::io("run", command.get_program()))?;
    let mut judged = Judged {
        origin,
        round: round.number,
        acked: round.acked,
        history: 0,
        devices: 0,
        time: std::time::Duration::ZERO,
        faults: Vec::new(),
    };
    let mut rules = 0;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let number = || rest.parse().unwrap_or(0);
        match word {
            "history" => judged.history = number(),
            "devices" => judged.devices = number(),
            "rules" => rules = number(),
            _ => judged.faults.push(rest.to_string()),
        }
    }
    if !output.status.success() {
        judged
            .faults
            .push(format!("an engine went down reading it: {}", output.status));
    }
    // Silence is no verdict: what was not said to be there is not.
    if judged.faults.is_empty() {
        for (name, held) in [("SQLite", judged.history), ("redb", judged.devices)] {
            if held < round.acked {
                let lacks = round.acked - held;
                judged
                    .faults
                    .push(format!("{name} lacks {lacks} acknowledged commits"));
            }
        }
        if rules == 0 {
            judged.faults.push("it has no rules".to_string());
        }
    }
    Ok(judged)
}
