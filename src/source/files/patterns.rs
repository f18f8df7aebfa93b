//! Says which paths are taken, by patterns of whole paths from the root:
//!
//! - `*`, `?` and `[a-z]`, `[!a-z]` match within a name, `{a,b}` either, `**` as a whole name any
//!   number of directories; a back-slash takes the meaning away;
//! - what a pattern matches is taken, and a directory with everything in it; `data/**` is all of
//!   `data` if that is a directory, and so is `data/`;
//! - directories that may lead to a match are on the way to it; nothing else is of interest.
//!
//! What is left out of that is said by `Rules`.

use crate::disk::node::Kind;
use crate::error::Error;
use crate::error::Result;
use globset::Candidate;
use globset::GlobBuilder;
use globset::GlobMatcher;

/// What to take.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

/// How a path stands to the patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Neither it nor anything below it is taken.
    Nothing,
    /// A directory that may lead to something that is taken.
    Way,
    /// It is taken, with all that is in it.
    Whole,
}

#[derive(Debug, Clone)]
struct Pattern {
    names: Vec<Name>,
    directories_only: bool,
}

#[derive(Debug, Clone)]
enum Name {
    Literal(Vec<u8>),
    Glob(Box<GlobMatcher>),
    /// `**`
    Any,
}

impl Patterns {
    /// Returns what these patterns take; one that makes no sense is refused.
    pub fn parse(patterns: &[impl AsRef<str>]) -> Result<Patterns> {
        let patterns = patterns.iter().map(|pattern| {
            let pattern = pattern.as_ref();
            parse(pattern).map_err(|reason| Error::Refused {
                reason: format!("pattern \"{pattern}\": {reason}"),
            })
        });
        let patterns = patterns.collect::<Result<_>>()?;
        Ok(Patterns { patterns })
    }

    /// Returns the paths that are named without any wildcard.
    pub fn literals(&self) -> impl Iterator<Item = Vec<u8>> {
        self.patterns.iter().filter_map(|pattern| {
            let names = pattern.names.iter().map(|name| match name {
                Name::Literal(name) => Some(&name[..]),
                Name::Glob(_) | Name::Any => None,
            });
            let names: Option<Vec<&[u8]>> = names.collect();
            names.map(|names| names.join(&b'/'))
        })
    }

    /// Returns how a path stands to the patterns, empty for the root.
    pub fn fit(&self, path: &[u8], kind: Kind) -> Fit {
        let fits = self.patterns.iter().map(|pattern| pattern.fit(path, kind));
        fits.max().unwrap_or(Fit::Nothing)
    }
}

impl Pattern {
    /// Follows the names of the path through those of the pattern, all ways at once: `at[n]` says
    /// that the first `n` names of the pattern can be behind.
    fn fit(&self, path: &[u8], kind: Kind) -> Fit {
        let end = self.names.len();
        let mut at = vec![false; end + 1];
        at[0] = true;
        self.skip_any(&mut at);
        let mut names = path.split(|&byte| byte == b'/').filter(|n| !n.is_empty());
        let mut name = names.next();
        while let Some(current) = name {
            if at[end] {
                // A directory above was taken.
                return Fit::Whole;
            }
            let mut next = vec![false; end + 1];
            for (index, pattern) in self
                .names
                .iter()
                .enumerate()
                .filter(|(index, _)| at[*index])
            {
                match pattern {
                    Name::Any => next[index] = true,
                    other => next[index + 1] |= other.matches(current),
                }
            }
            at = next;
            self.skip_any(&mut at);
            name = names.next();
        }
        let is_dir = kind == Kind::Directory;
        match at[end] && (is_dir || !self.directories_only) {
            true => Fit::Whole,
            false if is_dir && at.contains(&true) => Fit::Way,
            false => Fit::Nothing,
        }
    }

    /// `**` stands for no directory too.
    fn skip_any(&self, at: &mut [bool]) {
        for (index, name) in self.names.iter().enumerate() {
            at[index + 1] |= at[index] && matches!(name, Name::Any);
        }
    }
}

impl Name {
    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Name::Literal(literal) => literal == name,
            Name::Glob(glob) => glob.is_match_candidate(&Candidate::from_bytes(name)),
            Name::Any => true,
        }
    }
}

fn parse(pattern: &str) -> Result<Pattern, String> {
    if pattern.starts_with('!') {
        return Err("'!' has no meaning here; what is left out is said by `exclude`".into());
    }
    let rest = pattern
        .strip_prefix("./")
        .or_else(|| pattern.strip_prefix('/'));
    let rest = rest.unwrap_or(pattern);
    let (mut directories_only, rest) = match rest.strip_suffix('/') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let mut names = Vec::new();
    for name in rest.split('/') {
        match name {
            "" | "." | ".." => {
                let reason = "it has an empty, '.' or '..' component and would match nothing";
                return Err(reason.into());
            }
            "**" => names.push(Name::Any),
            name if name.contains(['*', '?', '[', ']', '{', '}', '\\']) => {
                let glob = GlobBuilder::new(name).backslash_escape(true).build();
                let glob = glob.map_err(|error| {
                    format!("{} in \"{name}\" (a '/' ends every name)", error.kind())
                })?;
                names.push(Name::Glob(Box::new(glob.compile_matcher())));
            }
            name => names.push(Name::Literal(name.as_bytes().to_vec())),
        }
    }
    while let Some(Name::Any) = names.last() {
        names.pop();
        directories_only = true;
    }
    Ok(Pattern {
        names,
        directories_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fit::Nothing;
    use Fit::Way;
    use Fit::Whole;

    #[test]
    fn patterns_mean_what_the_header_says() {
        // Patterns, path, is it a directory, how it stands.
        let table: &[(&[&str], &[u8], bool, Fit)] = &[
            (&[], b"", true, Nothing),
            (&["a"], b"", true, Way),
            (&["a"], b"a", false, Whole),
            (&["a"], b"x/a", false, Nothing),
            (&["a"], b"a/b/c", false, Whole),
            (&["/a"], b"a", false, Whole),
            (&["./a/b"], b"a", true, Way),
            (&["./a/b"], b"a", false, Nothing),
            (&["a/b"], b"b", true, Nothing),
            (&["a/*.toml"], b"a/x.toml", false, Whole),
            (&["a/*.toml"], b"a/x.toml/y", false, Whole),
            (&["a/*.toml"], b"a/x/y.toml", false, Nothing),
            (&["a/*.toml"], b"a/x", true, Nothing),
            (&["a/**/*.toml"], b"a", true, Way),
            (&["a/**/*.toml"], b"a/x", true, Way),
            (&["a/**/*.toml"], b"a/x.toml", false, Whole),
            (&["a/**/*.toml"], b"a/x/y/z.toml", false, Whole),
            (&["a/**/*.toml"], b"a/x/y/z.yaml", false, Nothing),
            (&["a/**"], b"a", true, Whole),
            (&["a/**"], b"a", false, Nothing),
            (&["a/**"], b"a/b", false, Whole),
            (&["a/"], b"a", true, Whole),
            (&["a/"], b"a", false, Nothing),
            (&["**"], b"", true, Whole),
            (&["**/a"], b"x/y/a", false, Whole),
            (&["**/a"], b"x/y", true, Way),
            (&["*"], b".env", false, Whole),
            (&["d/*/app.db"], b"d/x", true, Way),
            (&["d/*/app.db"], b"d/x/app.db", false, Whole),
            (&["d/*/app.db"], b"d/x/y", true, Nothing),
            (&["*.{db,redb}"], b"x.redb", false, Whole),
            (&["[!a]"], b"a", false, Nothing),
            (&["\\*"], b"*", false, Whole),
            (&["\\*"], b"x", false, Nothing),
            (&["?"], b"\xff", false, Whole),
            (&["x", "a/b"], b"a", true, Way),
        ];
        for (patterns, path, is_dir, fit) in table {
            let kind = if *is_dir { Kind::Directory } else { Kind::File };

            let parsed = Patterns::parse(patterns).unwrap();

            let path_text = String::from_utf8_lossy(path);
            assert_eq!(parsed.fit(path, kind), *fit, "{patterns:?} on {path_text}");
        }
    }

    #[test]
    fn many_wildcards_take_no_more_than_their_length_times_that_of_the_path() {
        let pattern = "**/a/".repeat(40) + "b";
        let path = "a/".repeat(2000) + "c";

        let fit = Patterns::parse(&[pattern])
            .unwrap()
            .fit(path.as_bytes(), Kind::File);

        assert_eq!(fit, Nothing);
    }

    #[test]
    fn what_is_named_without_wildcards_is_known() {
        let patterns = Patterns::parse(&["a/b", "*", "/c", "d/", "e/**", "f/**/g"]).unwrap();

        let literals: Vec<Vec<u8>> = patterns.literals().collect();

        assert_eq!(literals, [&b"a/b"[..], b"c", b"d", b"e"]);
    }

    #[test]
    fn a_pattern_that_makes_no_sense_is_refused_by_name() {
        for pattern in [
            "", "/", "//a", "a//b", "a/../b", "[a", "{a", "{a/b,c}", "!a", ".",
        ] {
            let error = Patterns::parse(&["fine", pattern]).unwrap_err();

            let named = format!("pattern \"{pattern}\": ");
            assert!(matches!(error, Error::Refused { .. }));
            assert!(error.to_string().starts_with(&named), "{error}");
        }
    }
}
