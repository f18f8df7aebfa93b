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
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Between two looks at whether it has come to an end.
const PAUSE: Duration = Duration::from_millis(5);
/// Much longer than reading a sound copy takes.
const PATIENCE: Duration = Duration::from_secs(30);

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
    let mut judged = judge(cx, options, Origin::Snapshot, round, &target)?;
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
    let mut judged = judge(
        cx,
        options,
        Origin::Archive,
        round,
        &target.join(archive::ROOT),
    )?;
    judged.time = time;
    // Of use to nobody, and as large as the application.
    fs::remove_dir_all(&target).map_err(Error::io("remove", &target))?;
    Ok(judged)
}

fn judge(
    cx: &Context,
    options: &DemoOptions<'_>,
    origin: Origin,
    round: &Round,
    dir: &Path,
) -> Result<Judged> {
    let mut command = (options.application)(Role::Judge, dir);
    let output = verdict(cx, &mut command)?;
    let mut judged = Judged {
        origin,
        round: round.number,
        acked: round.acked,
        history: 0,
        devices: 0,
        time: Duration::ZERO,
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
        judged.faults.push(format!(
            "an engine did not come through it: {}",
            output.status
        ));
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

/// Runs the judge. An engine that meets damage may say so on its way down, or not come to an end.
fn verdict(cx: &Context, command: &mut Command) -> Result<Output> {
    let program = command.get_program().to_owned();
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped());
    // Ctrl-C is for us: we end it, and then remove what it reads.
    let spawned = piped.stderr(Stdio::null()).process_group(0).spawn();
    let mut child = spawned.map_err(Error::io("run", &program))?;
    let began = Instant::now();
    while let Ok(None) = child.try_wait() {
        if cx.check().is_err() || began.elapsed() > PATIENCE {
            let _ = child.kill();
        }
        thread::sleep(PAUSE);
    }
    cx.check()?;
    // The few lines it may say fit into the pipe.
    child.wait_with_output().map_err(Error::io("run", &program))
}
