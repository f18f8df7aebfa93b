//! Says which paths are left out, by patterns that mean what they mean in a `.gitignore`:
//!
//! - without '/' (but at the end) a pattern matches a name at any depth, else the whole path from
//!   the root; a leading '/' or './' says so for a single name;
//! - `*`, `?` and `[a-z]`, `[!a-z]` match within a name, `**` across '/', `{a,b}` either (this one
//!   git lacks); a back-slash takes the meaning away;
//! - a '/' at the end matches directories only;
//! - the last pattern that matches decides, and `!pattern` keeps what an earlier one left out;
//! - nothing below a directory that is left out can be kept, since it is never entered.

use crate::disk::node::Kind;
use crate::error::Error;
use crate::error::Result;
use globset::Candidate;
use globset::GlobBuilder;
use globset::GlobSet;
use globset::GlobSetBuilder;

/// What to leave out.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    globs: GlobSet,
    effects: Vec<Effect>,
}

#[derive(Debug, Clone, Copy)]
struct Effect {
    keeps: bool,
    directories_only: bool,
}

impl Rules {
    /// Returns the rules of these patterns; one that makes no sense is refused.
    pub fn parse(patterns: &[impl AsRef<str>]) -> Result<Rules> {
        let mut globs = GlobSetBuilder::new();
        let mut effects = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let (glob, effect) = parse(pattern).map_err(|reason| refused(pattern, &reason))?;
            globs.add(glob);
            effects.push(effect);
        }
        let globs = globs.build();
        let globs = globs.map_err(|error| refused(error.glob().unwrap_or(""), &error))?;
        Ok(Rules { globs, effects })
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Returns true if the path, relative to the root, is left out.
    pub fn exclude(&self, path: &[u8], kind: Kind) -> bool {
        if self.is_empty() {
            return false;
        }
        let matches = self.globs.matches_candidate(&Candidate::from_bytes(path));
        let mut effects = matches.iter().rev().map(|&index| self.effects[index]);
        effects
            .find(|effect| kind == Kind::Directory || !effect.directories_only)
            .is_some_and(|effect| !effect.keeps)
    }
}

fn parse(pattern: &str) -> Result<(globset::Glob, Effect), String> {
    let (keeps, rest) = match pattern.strip_prefix('!') {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let (directories_only, rest) = match rest.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let anchored = rest.contains('/');
    let relative = rest.strip_prefix("./").or_else(|| rest.strip_prefix('/'));
    let relative = relative.unwrap_or(rest);
    if relative
        .split('/')
        .any(|name| matches!(name, "" | "." | ".."))
    {
        return Err("it has an empty, '.' or '..' component and would match nothing".into());
    }
    let glob = match anchored {
        true => relative.to_owned(),
        false => format!("**/{relative}"),
    };
    let glob = GlobBuilder::new(&glob)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| error.kind().to_string())?;
    let effect = Effect {
        keeps,
        directories_only,
    };
    Ok((glob, effect))
}

fn refused(pattern: &str, reason: &impl ToString) -> Error {
    Error::Refused {
        reason: format!("exclude pattern \"{pattern}\": {}", reason.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_the_header_says() {
        // Patterns, path, is it a directory, is it left out.
        let table: &[(&[&str], &[u8], bool, bool)] = &[
            (&[], b"a", false, false),
            (&["*.log"], b"a.log", false, true),
            (&["*.log"], b"deep/er/a.log", false, true),
            (&["*.log"], b"a.log/b", false, false),
            (&["/*.log"], b"a.log", false, true),
            (&["/*.log"], b"deep/a.log", false, false),
            (&["./a"], b"a", false, true),
            (&["./a"], b"b/a", false, false),
            (&["a/b"], b"a/b", false, true),
            (&["a/b"], b"x/a/b", false, false),
            (&["a/*"], b"a/b", false, true),
            (&["a/*"], b"a/b/c", false, false),
            (&["a/**"], b"a/b/c", false, true),
            (&["a/**"], b"a", true, false),
            (&["**/b"], b"b", false, true),
            (&["a/**/z"], b"a/z", false, true),
            (&["a/**/z"], b"a/b/c/z", false, true),
            (&["cache/"], b"cache", true, true),
            (&["cache/"], b"cache", false, false),
            (&["cache/"], b"x/cache", true, true),
            (&["/cache/"], b"x/cache", true, false),
            (&["*.log", "!keep.log"], b"keep.log", false, false),
            (&["!keep.log", "*.log"], b"keep.log", false, true),
            (&["*", "!*/"], b"d", true, false),
            (&["*", "!*/"], b"d", false, true),
            (&["?.x"], b"\xff.x", false, true),
            (&["?.x"], b"/.x", false, false),
            (&["[!a]b"], b"cb", false, true),
            (&["[!a]b"], b"ab", false, false),
            (&["*.{o,tmp}"], b"a.tmp", false, true),
            (&["\\*"], b"*", false, true),
            (&["\\*"], b"a", false, false),
            (&["\\!a"], b"!a", false, true),
            (&["A"], b"a", false, false),
        ];
        for (patterns, path, is_dir, excluded) in table {
            let rules = Rules::parse(patterns).unwrap();
            let kind = if *is_dir { Kind::Directory } else { Kind::File };

            let path_text = String::from_utf8_lossy(path);
            assert_eq!(
                rules.exclude(path, kind),
                *excluded,
                "{patterns:?} on {path_text}"
            );
        }
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_refused_by_name() {
        for pattern in ["", "!", "/", "//a", "a//b", "a/../b", "[a", "{a", "a/./b"] {
            let error = Rules::parse(&["fine", pattern]).unwrap_err();

            let named = format!("exclude pattern \"{pattern}\": ");
            assert!(matches!(error, Error::Refused { .. }));
            assert!(error.to_string().starts_with(&named), "{error}");
        }
    }
}
