//! Which files of a watch are taken, and by which rule the others are not.
//!
//! Globs are matched against the path relative to the watch's root, never the absolute one, and as bytes; `*` and
//! `?` stop at a slash. An exclude that matches a folder excludes all that is below, so that a walk need not
//! descend; one that ends in `/**` excludes the folder before it too. Includes apply to files alone. Names that
//! begin with [`PRIVATE_PREFIX`] are our own files on their way, and are never taken.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::config;

/// How the names begin that files have while we move them.
pub const PRIVATE_PREFIX: &str = ".ingestd-";

/// Whether a file is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is.
    Taken,
    /// It is not, by this rule.
    Excluded(Rule),
}

/// Why a file or folder is left alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// One of our own files on its way.
    Private,
    /// The folder that holds our database.
    StateDirectory,
    /// This `exclude` matches it or a folder above it.
    Exclude(String),
    /// No `include` matches it.
    NotIncluded,
    /// It lies in a folder, and `recursive` is off.
    NotRecursive,
    /// It lies deeper than so many levels (`max_depth`).
    TooDeep(u32),
    /// It has less than so many bytes (`min_size`).
    TooSmall(u64),
    /// It has more than so many bytes (`max_size`).
    TooLarge(u64),
    /// A line of an ignore file matches it.
    IgnoreFile {
        /// The ignore file.
        file: PathBuf,
        /// Its line.
        pattern: String,
    },
    /// It is the companion (`ready_suffix`) of another file.
    Companion(String),
    /// Its companion with this suffix does not exist yet.
    NotReady(String),
    /// It is a FIFO, a socket or a device.
    Special,
    /// It is a symbolic link, and `follow_symlinks` is off.
    Link,
    /// It is a symbolic link that leads out of the watch.
    LinkOut,
    /// It is a symbolic link to a folder above it, or one link too many on the way.
    LinkLoop,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Private => write!(f, "names beginning `{PRIVATE_PREFIX}` are our own"),
            Self::StateDirectory => f.write_str("the folder of the database"),
            Self::Exclude(glob) => write!(f, "exclude `{glob}`"),
            Self::NotIncluded => f.write_str("no `include` matches"),
            Self::NotRecursive => f.write_str("in a folder, and `recursive` is off"),
            Self::TooDeep(levels) => write!(f, "in a folder below the last level (`max_depth` is {levels})"),
            Self::TooSmall(least) => write!(f, "smaller than `min_size` ({})", config::show_size(*least)),
            Self::TooLarge(most) => write!(f, "larger than `max_size` ({})", config::show_size(*most)),
            Self::IgnoreFile { file, pattern } => write!(f, "`{pattern}` in {}", file.display()),
            Self::Companion(suffix) => write!(f, "the companion of a file (`ready_suffix` is `{suffix}`)"),
            Self::NotReady(suffix) => write!(f, "its companion with `{suffix}` does not exist yet"),
            Self::Special => f.write_str("neither a file nor a folder"),
            Self::Link => f.write_str("a symbolic link, and `follow_symlinks` is off"),
            Self::LinkOut => f.write_str("a symbolic link that leads out of the watch"),
            Self::LinkLoop => f.write_str("a symbolic link that leads in a circle"),
        }
    }
}

/// Globs that can't be understood.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{which} {why}")]
pub struct BadGlob {
    /// As the user wrote them.
    which: String,
    why: config::NoGlob,
}

impl BadGlob {
    fn one(glob: &str, why: config::NoGlob) -> Self {
        const SHOWN: usize = 80;
        let shown: String = glob.chars().take(SHOWN).collect();
        let cut = if shown.len() < glob.len() { "…" } else { "" };
        Self { which: format!("`{shown}{cut}`"), why }
    }

    /// All of a list together, unless it has but one.
    fn list(globs: &[String]) -> Self {
        let first = globs.first().map(String::as_str).unwrap_or_default();
        let Self { which, why } = Self::one(first, config::NoGlob::Large);
        let which = match globs.len() {
            0 | 1 => which,
            number => format!("the list of {number} globs that begins with {which}"),
        };
        Self { which, why }
    }
}

/// The rules of a watch that need nothing but a name, or a size.
#[derive(Debug)]
pub struct Filter {
    include: Globs,
    exclude: Globs,
    /// The folders that an exclude ending in `/**` empties.
    emptied: Globs,
    recursive: bool,
    max_depth: Option<u32>,
    min_size_bytes: u64,
    max_size_bytes: Option<u64>,
    ready_suffix: String,
}

impl Filter {
    /// The rules of this watch.
    pub fn new(watch: &config::Watch) -> Result<Self, BadGlob> {
        let plain = |glob: &String| (glob.clone(), glob.clone());
        let emptied = |glob: &String| emptied_folder(glob).map(|folder| (folder.to_owned(), glob.clone()));
        Ok(Self {
            include: Globs::new(watch.include.iter().map(plain))?,
            exclude: Globs::new(watch.exclude.iter().map(plain))?,
            emptied: Globs::new(watch.exclude.iter().filter_map(emptied))?,
            recursive: watch.recursive,
            max_depth: watch.max_depth,
            min_size_bytes: watch.min_size_bytes,
            max_size_bytes: watch.max_size_bytes,
            ready_suffix: watch.ready_suffix.clone(),
        })
    }

    /// Judges a folder by itself; those above it were judged before.
    pub fn folder(&self, relative: &Path) -> Ruling {
        if is_private(relative) {
            return Ruling::Excluded(Rule::Private);
        }
        if !self.recursive {
            return Ruling::Excluded(Rule::NotRecursive);
        }
        if let Some(glob) = self.exclude.matching(relative).or_else(|| self.emptied.matching(relative)) {
            return Ruling::Excluded(Rule::Exclude(glob.to_owned()));
        }
        // Level 1 is the root itself, so a folder in it is level 2.
        let too_deep = |levels: &u32| relative.components().count() >= *levels as usize;
        self.max_depth.filter(too_deep).map_or(Ruling::Taken, |levels| Ruling::Excluded(Rule::TooDeep(levels)))
    }

    /// Judges a file by its size.
    pub fn size(&self, bytes: u64) -> Ruling {
        match self.max_size_bytes {
            _ if bytes < self.min_size_bytes => Ruling::Excluded(Rule::TooSmall(self.min_size_bytes)),
            Some(most) if bytes > most => Ruling::Excluded(Rule::TooLarge(most)),
            _ => Ruling::Taken,
        }
    }

    /// Judges a file by itself; the folders above it were judged before.
    pub fn file(&self, relative: &Path) -> Ruling {
        if is_private(relative) {
            return Ruling::Excluded(Rule::Private);
        }
        if self.companion_of(relative).is_some() {
            return Ruling::Excluded(Rule::Companion(self.ready_suffix.clone()));
        }
        if let Some(glob) = self.exclude.matching(relative) {
            return Ruling::Excluded(Rule::Exclude(glob.to_owned()));
        }
        if !self.include.is_empty() && self.include.matching(relative).is_none() {
            return Ruling::Excluded(Rule::NotIncluded);
        }
        Ruling::Taken
    }

    /// Judges a file with all the folders above it.
    pub fn path(&self, relative: &Path) -> Ruling {
        match self.folders_above(relative) {
            Ruling::Taken => self.file(relative),
            excluded @ Ruling::Excluded(_) => excluded,
        }
    }

    /// Judges all the folders above.
    pub fn folders_above(&self, relative: &Path) -> Ruling {
        let above = relative.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty());
        for folder in above.collect::<Vec<_>>().into_iter().rev() {
            if let excluded @ Ruling::Excluded(_) = self.folder(folder) {
                return excluded;
            }
        }
        Ruling::Taken
    }

    /// The file whose companion this is, if it is one.
    pub fn companion_of(&self, relative: &Path) -> Option<PathBuf> {
        let name = relative.file_name()?.as_bytes();
        let suffix = self.ready_suffix.as_bytes();
        if suffix.is_empty() || name.len() <= suffix.len() {
            return None;
        }
        let stem = name.strip_suffix(suffix)?;
        Some(relative.with_file_name(std::ffi::OsStr::from_bytes(stem)))
    }

    /// What is added to a file's name to get its companion's, where the watch asks for companions.
    pub fn ready_suffix(&self) -> Option<&str> {
        (!self.ready_suffix.is_empty()).then_some(self.ready_suffix.as_str())
    }
}

/// The glob of the folders of which this one excludes all that is in them.
fn emptied_folder(glob: &str) -> Option<&str> {
    let folder = glob.strip_suffix("/**")?;
    let escapes = folder.len() - folder.trim_end_matches('\\').len();
    // An odd one of them is the slash's.
    Some(&folder[..folder.len() - escapes % 2])
}

fn is_private(relative: &Path) -> bool {
    relative.file_name().is_some_and(|name| name.as_bytes().starts_with(PRIVATE_PREFIX.as_bytes()))
}

/// Globs, each with the words in which the user wrote it.
#[derive(Debug)]
struct Globs {
    set: GlobSet,
    written: Vec<String>,
}

impl Globs {
    fn new(globs: impl Iterator<Item = (String, String)>) -> Result<Self, BadGlob> {
        let mut set = GlobSetBuilder::new();
        let mut written = Vec::new();
        for (glob, as_written) in globs {
            let bad = |why| BadGlob::one(&as_written, why);
            set.add(config::read_glob(GlobBuilder::new(&glob).literal_separator(true), &glob).map_err(bad)?);
            written.push(as_written);
        }
        let set = set.build().map_err(|_| BadGlob::list(&written))?;
        Ok(Self { set, written })
    }

    fn is_empty(&self) -> bool {
        self.written.is_empty()
    }

    fn matching(&self, path: &Path) -> Option<&str> {
        let candidate = Candidate::from_bytes(path.as_os_str().as_bytes());
        let first = self.set.matches_candidate(&candidate).into_iter().min()?;
        self.written.get(first).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn filter(change: impl FnOnce(&mut config::Watch)) -> Filter {
        let mut watch = config::Watch::of(PathBuf::from("/srv/inbox"), "p".to_owned());
        change(&mut watch);
        Filter::new(&watch).unwrap()
    }

    fn excluded_by(ruling: Ruling) -> String {
        match ruling {
            Ruling::Taken => "taken".to_owned(),
            Ruling::Excluded(Rule::Exclude(glob)) => glob,
            Ruling::Excluded(rule) => format!("{rule:?}"),
        }
    }

    #[test]
    fn the_default_excludes_name_their_rule() {
        let filter = filter(|_| ());
        for (path, by) in [
            ("a.pdf", "taken"),
            ("deep/er/a.pdf", "taken"),
            (".hidden", "**/.*"),
            (".git/config", "**/.*"),
            ("a/.git/b/c", "**/.*"),
            ("a/b.part", "**/*.part"),
            ("a~", "**/*~"),
            ("x/@eaDir/y", "**/@eaDir/**"),
            ("x/.ingestd-1", "Private"),
            ("@eaDir", "taken"),
        ] {
            assert_eq!(excluded_by(filter.path(Path::new(path))), by, "{path}");
        }
        assert_eq!(excluded_by(filter.folder(Path::new("x/@eaDir"))), "**/@eaDir/**");
    }

    #[test]
    fn a_star_stops_at_a_slash_and_includes_apply_to_files_alone() {
        let filter = filter(|watch| {
            watch.include = vec!["*.pdf".to_owned(), "scans/**".to_owned()];
            watch.exclude = vec!["old".to_owned(), "scans/*.txt".to_owned()];
        });
        assert_eq!(filter.path(Path::new("a.pdf")), Ruling::Taken);
        assert_eq!(filter.path(Path::new("x/a.pdf")), Ruling::Excluded(Rule::NotIncluded));
        assert_eq!(filter.path(Path::new("scans/x/a")), Ruling::Taken);
        assert_eq!(filter.folder(Path::new("x")), Ruling::Taken);
        assert_eq!(excluded_by(filter.path(Path::new("scans/a.txt"))), "scans/*.txt");
        assert_eq!(filter.path(Path::new("scans/x/a.txt")), Ruling::Taken);
        assert_eq!(excluded_by(filter.path(Path::new("old/a.pdf"))), "old");
    }

    #[test]
    fn names_are_bytes() {
        let filter = filter(|watch| watch.include = vec!["**/*.pdf".to_owned()]);
        assert_eq!(filter.path(Path::new(OsStr::from_bytes(b"d\xff\n/-\xfe.pdf"))), Ruling::Taken);
        assert_eq!(filter.path(Path::new(OsStr::from_bytes(b"\xfe.txt"))), Ruling::Excluded(Rule::NotIncluded));
    }

    #[test]
    fn without_recursion_only_the_root_counts() {
        let filter = filter(|watch| watch.recursive = false);
        assert_eq!(filter.path(Path::new("a")), Ruling::Taken);
        assert_eq!(filter.path(Path::new("a/b")), Ruling::Excluded(Rule::NotRecursive));
    }

    #[test]
    fn folders_count_down_to_the_last_level() {
        let with = |levels| filter(|watch| watch.max_depth = levels);
        let too_deep = |levels| Ruling::Excluded(Rule::TooDeep(levels));
        assert_eq!(with(None).path(Path::new("a/b/c/d")), Ruling::Taken);
        assert_eq!(with(Some(1)).path(Path::new("a")), Ruling::Taken);
        assert_eq!(with(Some(1)).folder(Path::new("a")), too_deep(1));
        assert_eq!(with(Some(2)).path(Path::new("a/b")), Ruling::Taken);
        assert_eq!(with(Some(2)).folder(Path::new("a/b")), too_deep(2), "it is not entered");
        assert_eq!(with(Some(2)).path(Path::new("a/b/c/d")), too_deep(2));
        let both = filter(|watch| (watch.max_depth, watch.recursive) = (Some(9), false));
        assert_eq!(both.path(Path::new("a/b")), Ruling::Excluded(Rule::NotRecursive));
    }

    #[test]
    fn sizes_at_the_limits_are_taken() {
        let filter = filter(|watch| (watch.min_size_bytes, watch.max_size_bytes) = (10, Some(1 << 20)));
        assert_eq!(filter.size(9), Ruling::Excluded(Rule::TooSmall(10)));
        assert_eq!(filter.size(10), Ruling::Taken);
        assert_eq!(filter.size(1 << 20), Ruling::Taken);
        let too_large = Rule::TooLarge(1 << 20);
        assert_eq!(too_large.to_string(), "larger than `max_size` (1MiB)");
        assert_eq!(filter.size((1 << 20) + 1), Ruling::Excluded(too_large));
        let any = Filter::new(&config::Watch::of(PathBuf::from("/srv"), "p".to_owned())).unwrap();
        assert_eq!([0, u64::MAX].map(|bytes| any.size(bytes)), [Ruling::Taken, Ruling::Taken]);
    }

    #[test]
    fn a_companion_is_told_from_its_file() {
        let filter = filter(|watch| watch.ready_suffix = ".done".to_owned());
        assert_eq!(filter.path(Path::new("x/a.pdf")), Ruling::Taken);
        assert_eq!(filter.path(Path::new("x/a.pdf.done")), Ruling::Excluded(Rule::Companion(".done".to_owned())));
        assert_eq!(filter.companion_of(Path::new("x/a.pdf.done")), Some(PathBuf::from("x/a.pdf")));
        assert_eq!(filter.companion_of(Path::new("x/.done")), None);
    }

    #[test]
    fn an_escaped_slash_before_two_stars_is_a_slash() {
        let excluding = |glob: &str| filter(|watch| watch.exclude = vec![glob.to_owned()]);
        assert_eq!(excluded_by(excluding(r"a\/**").folder(Path::new("a"))), r"a\/**");
        assert_eq!(excluded_by(excluding(r"a\\/**").folder(Path::new("a"))), "taken");
    }

    #[test]
    fn a_bad_glob_is_refused_by_name() {
        let mut watch = config::Watch::of(PathBuf::from("/srv"), "p".to_owned());
        watch.exclude = vec!["a[".to_owned()];
        assert!(Filter::new(&watch).unwrap_err().to_string().contains("`a[` is not a glob"));
        watch.exclude = vec![format!("{}[", "é".repeat(100))];
        assert!(Filter::new(&watch).unwrap_err().to_string().contains("éé…` is not a glob"));
        watch.exclude = vec!["*.tmp".to_owned()];
        watch.exclude.resize(1_000, "[!a]?".repeat(800));
        let large = Filter::new(&watch).unwrap_err().to_string();
        assert!(large.contains("the list of 1000 globs that begins with `*.tmp` is too large"), "{large}");
    }
}
