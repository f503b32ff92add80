//! What a virtual machine boots: a kernel of Debian's, and a file system in memory with busybox and the program.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::run;

/// What the kernel needs for the disk and for the lines on which the machine speaks, in the order of their needs.
const MODULES: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "libcrc32c",
    "xfs",
];

/// Says where a kernel is, if it is not the system's: a folder with what Debian's packages hold.
const VARIABLE: &str = "INGESTD_KERNEL";

/// A kernel with its modules, and busybox.
pub struct Guest {
    /// The kernel.
    pub kernel: PathBuf,
    modules: Vec<PathBuf>,
    busybox: PathBuf,
}

impl Guest {
    /// Looks for one; says aloud what is skipped where there is none.
    pub fn find() -> Option<Self> {
        let root = std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let guest = Self::find_in(&root);
        if guest.is_none() {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!(
                "skipped: {test}, because {} has no boot/vmlinuz-* with its lib/modules and bin/busybox; {VARIABLE} may \
                 name a folder into which linux-image-*-cloud-amd64 and busybox-static were unpacked by `dpkg -x`",
                root.display()
            );
        }
        guest
    }

    fn find_in(root: &Path) -> Option<Self> {
        let kernels = fs::read_dir(root.join("boot")).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let release = |kernel: &Path| kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-").map(str::to_owned);
        let (kernel, release) = kernels.filter_map(|kernel| Some((kernel.clone(), release(&kernel)?))).max()?;
        let busybox = ["bin", "usr/bin"].map(|folder| root.join(folder).join("busybox"));
        let busybox = busybox.into_iter().find(|busybox| busybox.exists())?;
        let folder = ["lib", "usr/lib"].map(|lib| root.join(lib).join("modules").join(&release));
        let mut folders: Vec<PathBuf> = vec![folder.into_iter().find(|folder| folder.exists())?];
        let mut modules = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).ok()? {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                if entry.file_type().ok()?.is_dir() {
                    folders.push(entry.path());
                } else if MODULES.iter().any(|module| name == format!("{module}.ko")) {
                    modules.push(entry.path());
                }
            }
        }
        Some(Self { kernel, modules, busybox })
    }

    /// Makes the file system in memory, with these files (name, content) of the test's own, as an archive.
    pub fn pack(&self, folder: &Path, files: &[(&str, &[u8])]) -> PathBuf {
        let (root, archive) = (folder.join("root"), folder.join("initrd"));
        for name in ["bin", "modules", "proc", "sys", "dev", "tmp", "disk", "outside"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        symlink("/dev/hvc0", root.join("outside/oracle")).unwrap();
        fs::copy(&self.busybox, root.join("bin/busybox")).unwrap();
        fs::write(root.join("modules/order"), MODULES.join("\n")).unwrap();
        for module in &self.modules {
            fs::copy(module, root.join("modules").join(module.file_name().unwrap())).unwrap();
        }
        let program = Path::new(env!("CARGO_BIN_EXE_ingestd"));
        run(Command::new("strip").arg("-o").arg(root.join("bin/ingestd")).arg(program));
        for library in libraries(program) {
            let inside = root.join(library.strip_prefix("/").unwrap());
            fs::create_dir_all(inside.parent().unwrap()).unwrap();
            fs::copy(&library, inside).unwrap();
        }
        for (name, content) in files {
            fs::write(root.join(name), content).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let pack = "find . | \"$0\" cpio -o -H newc 2>&1 > \"$1\"";
        run(Command::new("sh").args(["-c", pack]).arg(&self.busybox).arg(&archive).current_dir(&root));
        archive
    }
}

/// The libraries that a program needs, and what loads them.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
