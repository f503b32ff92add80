//! What is mounted where: no event tells that a filesystem came over a root, went from it, or changed a part of the tree.
//!
//! The kernel says on `/proc/self/mountinfo` that its table changed (proc(5): `poll` marks the file with `POLLPRI`), so
//! one task of the daemon waits there, for all watches, and costs nothing while nothing happens. A watch looks at the
//! lines that concern its root, and only if those are others now does it look at the root and scan.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const TABLE: &str = "/proc/self/mountinfo";

/// The table of mounts as the kernel prints it.
pub type Table = Arc<[u8]>;

/// Waits for changes of the table.
#[derive(Debug)]
pub struct Mounts {
    file: AsyncFd<OwnedFd>,
}

impl Mounts {
    /// Begins to listen. Needs a runtime. An error says that this system has no such table.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { file: crate::os::register(OwnedFd::from(File::open(TABLE)?), Interest::PRIORITY)? })
    }

    /// The table as it is now.
    pub fn read() -> Table {
        // Without one, nothing is known to be mounted, now and later.
        std::fs::read(TABLE).unwrap_or_default().into()
    }

    /// Resolves when it may have changed.
    pub async fn changed(&self) -> io::Result<()> {
        self.file.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}

/// The mounts that matter to the tree at `root`: those over a folder on the way to it, on it, and in it. Each by its
/// number, its device and its mount point, as the table has them.
pub(super) fn concerning(table: &[u8], root: &Path) -> BTreeSet<Vec<u8>> {
    let root = escaped(root);
    let mut concerning = BTreeSet::new();
    for line in table.split(|byte| *byte == b'\n') {
        // 36 35 98:0 /mnt1 /mnt2 rw,noatime …: number, parent, device, root in the filesystem, mount point.
        let mut fields = line.split(|byte| *byte == b' ');
        let (number, device, point) = (fields.next(), fields.nth(1), fields.nth(1));
        if let (Some(number), Some(device), Some(point)) = (number, device, point)
            && (is_within(&root, point) || is_within(point, &root))
        {
            concerning.insert([number, device, point].join(&b' '));
        }
    }
    concerning
}

/// Whether `path` is `folder` or lies in it.
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// A path as the table prints it: space, tab, line break and backslash in octal.
fn escaped(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => escaped.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            byte => escaped.push(*byte),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/sda rw\n\
        2 1 0:5 / /srv/in\\040box rw shared:1 - tmpfs tmpfs rw\n\
        3 2 0:6 / /srv/in\\040box/deep rw - tmpfs tmpfs rw\n\
        4 1 0:7 / /srv/in rw - tmpfs tmpfs rw\n\
        5 1 0:8 / /other rw - tmpfs tmpfs rw\n";

    #[test]
    fn mounts_above_on_and_in_a_root_concern_it_and_others_do_not() {
        let numbers = |root: &str| {
            let lines = concerning(TABLE, Path::new(root));
            lines.iter().map(|line| char::from(line[0])).collect::<String>()
        };
        assert_eq!(numbers("/srv/in box"), "123");
        assert_eq!(numbers("/srv/in box/deep/er"), "123");
        assert_eq!(numbers("/srv"), "1234");
        assert_eq!(numbers("/var"), "1");
    }

    #[test]
    fn the_table_of_this_system_names_a_root() {
        assert!(!concerning(&Mounts::read(), Path::new("/")).is_empty());
    }
}
