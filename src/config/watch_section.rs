//! `[watch.NAME]`, as the program means it, with its defaults. How it is read is the matter of `watch`.

use std::path::PathBuf;
use std::time::Duration;

use crate::job::Priority;

/// `[watch.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The folder, absolute.
    pub path: PathBuf,
    /// The pipeline that its files go through.
    pub pipeline: String,
    /// Whether folders in it count.
    pub recursive: bool,
    /// Globs relative to the root; empty: everything.
    pub include: Vec<String>,
    /// Globs relative to the root; these win.
    pub exclude: Vec<String>,
    /// Whether `.gitignore` and `.ingestdignore` are obeyed.
    pub ignore_files: bool,
    /// The level of its jobs.
    pub priority: Priority,
    /// Quiet time after the last write before a file counts as whole; zero: at its close.
    pub settle: Duration,
    /// A file is taken once a file with this suffix added to its name exists; empty: at once.
    pub ready_suffix: String,
    /// Which changes become jobs.
    pub events: WatchEvents,
    /// How changes are noticed.
    pub mode: WatchMode,
    /// How often a polled tree is walked.
    pub poll_interval: Duration,
    /// How often a native tree is walked, in case events were lost.
    pub rescan_interval: Duration,
    /// Whether symbolic links are followed.
    pub follow_symlinks: bool,
    /// Levels of folders that count, 1 being the root itself; `None`: all of them.
    pub max_depth: Option<u32>,
    /// Smaller files are left out.
    pub min_size_bytes: u64,
    /// Larger files are left out; never less than `min_size_bytes`. `None`: no limit.
    pub max_size_bytes: Option<u64>,
    /// A file is taken once its last modification is this long ago.
    pub min_age: Duration,
    /// In which order a scan hands over what it found.
    pub order: WatchOrder,
    /// What a file becomes that has another name by now.
    pub on_rename: OnRename,
    /// Which files are left out because their content is known.
    pub dedupe: Dedupe,
    /// When many deletions at once are not believed.
    pub delete_brake: DeleteBrake,
    /// What happens to the file after success.
    pub on_success: Disposal,
    /// What happens to the file after failure for good; never `Delete`.
    pub on_failure: Disposal,
}

/// Which changes become jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchEvents {
    /// New files.
    pub add: bool,
    /// New content.
    pub modify: bool,
    /// Files that are gone.
    pub delete: bool,
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchMode {
    /// Native events, except where the filesystem sends none.
    #[default]
    Auto,
    /// Native events.
    Native,
    /// Walks.
    Poll,
}

/// In which order a scan hands over what it found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchOrder {
    /// By path, as the walk comes by.
    #[default]
    Path,
    /// The file that was modified last comes first.
    Newest,
    /// The file that was modified last comes last.
    Oldest,
}

/// What a file becomes that has another name by now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRename {
    /// One job, `modify`, that tells where the file was.
    #[default]
    Modify,
    /// A deletion and a new file, as if unrelated.
    Separate,
    /// The same source under another name: content that was processed is not processed again.
    Track,
}

/// Which files are left out because their content is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dedupe {
    /// None.
    #[default]
    None,
    /// Those whose content the pipeline completed already, under whatever name.
    Content,
}

/// `delete_brake`: when many deletions at once are not believed, for an empty mount point looks like them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeleteBrake {
    /// More files than this have to be gone at once …
    pub above: u64,
    /// … and more than this share of the files that are known, from 0 to 1.
    pub share: f64,
    /// They count as deleted after this time; zero: at once, whatever their number.
    pub wait: Duration,
}

/// What happens to a file after its processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Disposal {
    /// It stays.
    #[default]
    Keep,
    /// It goes away.
    Delete,
    /// It goes to this folder, absolute, under its relative path.
    Move(PathBuf),
}

impl Watch {
    /// A watch on this folder with every other key at its default.
    pub fn of(path: PathBuf, pipeline: String) -> Self {
        const EXCLUDE: [&str; 10] = [
            "**/.*",
            "**/*~",
            "**/*.part",
            "**/*.partial",
            "**/*.crdownload",
            "**/*.tmp",
            "**/*.swp",
            "**/Thumbs.db",
            "**/desktop.ini",
            "**/@eaDir/**",
        ];
        Self {
            path,
            pipeline,
            recursive: true,
            include: Vec::new(),
            exclude: EXCLUDE.iter().map(|glob| (*glob).to_owned()).collect(),
            ignore_files: false,
            priority: Priority::Normal,
            settle: Duration::from_secs(1),
            ready_suffix: String::new(),
            events: WatchEvents { add: true, modify: true, delete: false },
            mode: WatchMode::Auto,
            poll_interval: Duration::from_secs(2),
            rescan_interval: Duration::from_hours(1),
            follow_symlinks: false,
            on_success: Disposal::Keep,
            on_failure: Disposal::Keep,
            max_depth: None,
            min_size_bytes: 0,
            max_size_bytes: None,
            min_age: Duration::ZERO,
            order: WatchOrder::default(),
            on_rename: OnRename::default(),
            dedupe: Dedupe::default(),
            delete_brake: DeleteBrake::default(),
        }
    }
}

impl Default for DeleteBrake {
    /// A person who tidies up rarely deletes half of everything, and never notices an hour's delay of it; an hour
    /// is long enough to mount again what went away.
    fn default() -> Self {
        Self { above: 100, share: 0.5, wait: Duration::from_hours(1) }
    }
}
