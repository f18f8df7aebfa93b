//! Power loss on a real file system: an ext4 of its own is shut down under a running operation, as
//! if the cable were pulled, and mounted again with what its journal holds.

#![allow(unsafe_code, reason = "an ioctl has no safe wrapper")]

use super::how_many;
use super::wanted;
use super::world::World;
use crate::support::Seeded;
use std::fs::File;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;

const SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
/// How the ioctl numbers them: everything written back before, the journal only, nothing at all.
const WAYS: [(u32, &str); 3] = [
    (2, "nothing flushed"),
    (1, "journal flushed"),
    (0, "all flushed"),
];

/// An ext4 in a file, mounted.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn mount(dir: &Path, at: &Path) -> Result<Disk, String> {
        let image = dir.join("image");
        std::fs::create_dir(at).unwrap();
        File::create(&image).unwrap().set_len(96 << 20).unwrap();
        let made = Command::new("mke2fs")
            .args(["-q", "-t", "ext4"])
            .arg(&image)
            .status();
        if !made.is_ok_and(|status| status.success()) {
            return Err("mke2fs is missing".to_string());
        }
        let disk = Disk {
            image,
            at: at.to_path_buf(),
        };
        match disk.attach() {
            true => Ok(disk),
            false => Err("a loop device cannot be mounted here".to_string()),
        }
    }

    fn attach(&self) -> bool {
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "ext4", "-o", "loop"])
            .arg(&self.image)
            .arg(&self.at);
        mount
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn detach(&self) {
        // Whoever was killed may not be quite gone.
        for _ in 0..500 {
            let mut umount = Command::new("umount");
            if umount
                .arg(&self.at)
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
            {
                return;
            }
            std::thread::yield_now();
        }
        panic!("{} stays mounted", self.at.display());
    }

    fn sync(&self) {
        rustix::fs::syncfs(File::open(&self.at).unwrap()).unwrap();
    }

    /// Pulls the cable. From here on nothing reaches the disk.
    fn shut_down(&self, how: u32) -> rustix::io::Result<()> {
        let root = File::open(&self.at).unwrap();
        // Safety: the call reads one u32 behind the pointer, which the setter holds.
        unsafe {
            let call = rustix::ioctl::Setter::<SHUTDOWN, u32>::new(how);
            rustix::ioctl::ioctl(&root, call)
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(&self.at)
            .stderr(Stdio::null())
            .status();
    }
}

/// I6: what was reported is there after power loss, at random moments of every operation.
#[test]
fn power_loss_at_random_moments_loses_nothing_that_was_reported() {
    let dir = TempDir::new().unwrap();
    let at = dir.path().join("world");
    let disk = match Disk::mount(dir.path(), &at) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("SKIPPED power_loss_at_random_moments: {reason}");
            return;
        }
    };
    let world = World::make(dir, at);
    disk.sync();
    let (mut random, mut wrong, mut total) = (Seeded::new(41), Vec::new(), 0);
    let cuts = how_many(1, 1000);
    for (_, operation) in wanted(2) {
        world.lay();
        let begun = Instant::now();
        let output = world.command(&[], operation.args).output().unwrap();
        assert!(output.status.success(), "{}", super::world::said(&output));
        let lasts = u64::try_from(begun.elapsed().as_micros()).unwrap();
        let (mut reported, mut cut_short) = (0, 0);
        for cut in 0..cuts {
            world.lay();
            disk.sync();
            let (flag, way) = WAYS[cut % 3];
            let mut child = world
                .command(&[], operation.args)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            // Some come after the end: what was reported has to be there.
            std::thread::sleep(Duration::from_micros(random.below(lasts * 5 / 4)));
            if let Err(errno) = disk.shut_down(flag) {
                eprintln!("SKIPPED power_loss_at_random_moments: no shutdown: {errno}");
                child.wait().unwrap();
                return;
            }
            // It goes on against a disk that is gone, and must not call that success.
            let ended = child.try_wait().unwrap();
            cut_short += usize::from(ended.is_none());
            let output = child.wait_with_output().unwrap();
            disk.detach();
            assert!(disk.attach(), "cut {cut}: it cannot be mounted again");
            reported += usize::from(output.status.success());
            let mut faults = world.judge(operation, &output, true);
            // The configuration was on that disk too, and may be what could not be read first.
            faults.retain(|fault| !fault.starts_with("ended with exit status: 2"));
            for fault in faults {
                let case = format!("{} cut {cut}, {way}", operation.name);
                eprintln!("{case}: {fault} (it said {})", super::world::said(&output));
                wrong.push(format!("{case}: {fault}"));
            }
        }
        total += cuts;
        eprintln!(
            "{}: {cuts} losses, {cut_short} while it ran, {reported} reported done",
            operation.name
        );
    }
    assert!(wrong.is_empty(), "{} of {total}", wrong.len());
}
