//! Asking a person at the terminal.
//!
//! The line is read key by key with the terminal's own editing and signals switched off, so that
//! ^C and SIGTERM end the question at once and the terminal's mode is always put back.

use crate::context::Context;
use crate::error::Error;
use crate::error::Result;
use rustix::termios;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::SpecialCodeIndex;
use rustix::termios::Termios;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::IsTerminal;
use std::io::Read;
use std::io::Write;
use zeroize::Zeroizing;

const TTY: &str = "/dev/tty";
/// Tenths of a second after which a read returns to look for signals.
const POLL_TENTHS: u8 = 2;
const LINE_BYTES_MAX: usize = 1024;

/// Whether what is typed is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Echo {
    Shown,
    Hidden,
}

/// A person at a terminal.
pub(super) struct Terminal {
    tty: File,
}

impl Terminal {
    /// Returns the terminal if somebody sits there: a process whose input comes from elsewhere
    /// must not wait for keys.
    pub(super) fn open() -> Option<Terminal> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let tty = OpenOptions::new().read(true).write(true).open(TTY).ok()?;
        Some(Terminal { tty })
    }

    /// Asks for a secret, which is not shown.
    pub(super) fn ask_secret(&self, cx: &Context, question: &str) -> Result<Zeroizing<Vec<u8>>> {
        self.read_line(cx, question, Echo::Hidden)
    }

    /// Asks for a yes; anything else is a no.
    pub(super) fn ask_yes(&self, cx: &Context, question: &str) -> Result<bool> {
        let answer = self.read_line(cx, &format!("{question} [y/N] "), Echo::Shown)?;
        let answer = answer.trim_ascii().to_ascii_lowercase();
        Ok(matches!(&answer[..], b"y" | b"yes"))
    }

    /// Asks for a word, such as a name that is not typed by accident.
    pub(super) fn ask_word(&self, cx: &Context, question: &str) -> Result<String> {
        let answer = self.read_line(cx, question, Echo::Shown)?;
        Ok(String::from_utf8_lossy(answer.trim_ascii()).into_owned())
    }

    fn read_line(&self, cx: &Context, question: &str, echo: Echo) -> Result<Zeroizing<Vec<u8>>> {
        let mode = KeyMode::set(&self.tty).map_err(Error::io("set up", TTY))?;
        let say = |text: &str| {
            let written = (&self.tty).write_all(text.as_bytes());
            written.map_err(Error::io("write to", TTY))
        };
        say(question)?;
        // Reserved in one go, so that no copy of a secret is left behind by growing.
        let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX));
        let answer = loop {
            cx.check()?;
            let mut key = Zeroizing::new([0; 1]);
            let count = match (&self.tty).read(&mut key[..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                count => count.map_err(Error::io("read from", TTY))?,
            };
            match (count, key[0]) {
                (0, _) => {}
                (_, b'\r' | b'\n') => break Ok(line),
                (_, CTRL_C) => break Err(Error::Cancelled),
                (_, CTRL_D) if line.is_empty() => break Err(Error::Cancelled),
                (_, key @ (BACKSPACE | DELETE | CTRL_U)) => {
                    while erase(&mut line) {
                        if echo == Echo::Shown {
                            say("\x08 \x08")?;
                        }
                        if key != CTRL_U {
                            break;
                        }
                    }
                }
                (_, ..0x20) => {}
                (_, byte) if line.len() < LINE_BYTES_MAX => {
                    line.push(byte);
                    if echo == Echo::Shown {
                        let shown = (&self.tty).write_all(&[byte]);
                        shown.map_err(Error::io("write to", TTY))?;
                    }
                }
                _ => {}
            }
        };
        drop(mode);
        say("\n")?;
        answer
    }
}

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const DELETE: u8 = 0x7f;

/// Takes the last character away, all bytes of it.
fn erase(line: &mut Vec<u8>) -> bool {
    let is_continued = |byte: Option<&u8>| byte.is_some_and(|byte| byte & 0xc0 == 0x80);
    while is_continued(line.last()) {
        line.pop();
    }
    line.pop().is_some()
}

/// The terminal yields keys as they are pressed, until this is dropped.
struct KeyMode<'t> {
    tty: &'t File,
    before: Termios,
}

impl KeyMode<'_> {
    fn set(tty: &File) -> io::Result<KeyMode<'_>> {
        let before = termios::tcgetattr(tty)?;
        let mut keys = before.clone();
        keys.local_modes -=
            LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        keys.special_codes[SpecialCodeIndex::VMIN] = 0;
        keys.special_codes[SpecialCodeIndex::VTIME] = POLL_TENTHS;
        // What was typed before the question was not an answer to it.
        termios::tcsetattr(tty, OptionalActions::Flush, &keys)?;
        Ok(KeyMode { tty, before })
    }
}

impl Drop for KeyMode<'_> {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(self.tty, OptionalActions::Now, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erasing_takes_a_whole_character() {
        let mut line = "aü".as_bytes().to_vec();

        assert!(erase(&mut line));
        assert_eq!(line, b"a");
        assert!(erase(&mut line));
        assert!(!erase(&mut line));
    }
}
