//! The outlet: disks are mounted while it has power, and all of them lose it at one moment.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::has_tools;

use super::disk::Disk;
use super::fuse::{LONGEST_REQUEST, Request, Session};

/// How often disks that hang look whether they still do.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Disks, mounted or not.
pub struct Outlet {
    shared: Arc<Mutex<Shared>>,
    mounts: Vec<(PathBuf, JoinHandle<()>)>,
}

struct Shared {
    disks: Vec<Disk>,
    random: fastrand::Rng,
    /// Changes and syncs since the power came on.
    operations: u64,
    /// The power goes at this one.
    last: Option<u64>,
    is_on: bool,
    /// Whether the disks hang.
    hangs: bool,
    /// Whether somebody asked them for something while they did.
    is_awaited: bool,
}

impl Outlet {
    /// Whether disks can be mounted here; says aloud what is skipped where not.
    pub fn is_possible() -> bool {
        let possible = rustix::process::geteuid().is_root() && File::options().write(true).open("/dev/fuse").is_ok();
        if !possible {
            let test = std::thread::current().name().unwrap_or("a test").to_owned();
            eprintln!("skipped: {test}, because only root can mount a disk of its own, by /dev/fuse");
        }
        possible && has_tools(&["mount", "umount"])
    }

    /// So many empty disks, without power.
    pub fn new(disks: usize, random: fastrand::Rng) -> Self {
        let disks = (0..disks).map(|_| Disk::new()).collect();
        let shared = Shared { disks, random, operations: 0, last: None, is_on: false, hangs: false, is_awaited: false };
        Self { shared: Arc::new(Mutex::new(shared)), mounts: Vec::new() }
    }

    /// Gives power and mounts each disk at its folder. It goes at the `last` change or sync, counted from 1 over all
    /// disks, before that is done or before that is answered.
    pub fn on(&mut self, folders: &[PathBuf], last: Option<u64>) {
        {
            let mut shared = self.shared.lock().unwrap();
            (shared.operations, shared.last, shared.is_on) = (0, last, true);
        }
        for (number, folder) in folders.iter().enumerate() {
            std::fs::create_dir_all(folder).unwrap();
            let device = mount(folder);
            let shared = Arc::clone(&self.shared);
            let serve = move || serve(device, &shared, number);
            self.mounts.push((folder.clone(), std::thread::spawn(serve)));
        }
    }

    /// Whether the power is on.
    pub fn is_on(&self) -> bool {
        self.shared.lock().unwrap().is_on
    }

    /// How many changes and syncs there were since it came on.
    pub fn operations(&self) -> u64 {
        self.shared.lock().unwrap().operations
    }

    /// From now on the disks have power and answer nothing: whoever asks them waits, and can't be killed.
    pub fn hang(&self) {
        let mut shared = self.shared.lock().unwrap();
        (shared.hangs, shared.is_awaited) = (true, false);
    }

    /// Whether somebody has asked since they hang, and waits.
    pub fn is_awaited(&self) -> bool {
        self.shared.lock().unwrap().is_awaited
    }

    /// The disks answer again.
    pub fn go_on(&self) {
        self.shared.lock().unwrap().hangs = false;
    }

    /// Takes the power away now, if it is on, and removes the mounts. Whoever used them must be gone.
    pub fn cut(&mut self) {
        self.shared.lock().unwrap().lose_power();
        self.unmount();
    }

    /// Shuts down in order: everything is on the disks.
    pub fn shut_down(&mut self) {
        {
            let mut shared = self.shared.lock().unwrap();
            assert!(shared.is_on, "the power has gone before");
            shared.is_on = false;
            shared.disks.iter_mut().for_each(Disk::settle);
        }
        self.unmount();
    }

    fn unmount(&mut self) {
        for (folder, server) in self.mounts.drain(..) {
            // By force: the server may have gone. Lazily: whoever is in there, the name is free again.
            let _ = Command::new("umount").args(["-f", "-l"]).arg(&folder).output();
            let _ = server.join();
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if let Ok(mut shared) = self.shared.lock() {
            (shared.is_on, shared.hangs) = (false, false);
        }
        self.unmount();
    }
}

impl Shared {
    fn lose_power(&mut self) {
        if self.is_on {
            self.is_on = false;
            // Nothing, half, nearly everything of what was not synced.
            let luck = [0.0, 0.5, 0.9][self.random.usize(..3)];
            for disk in &mut self.disks {
                disk.lose_power(luck, &mut self.random);
            }
        }
    }

    /// Carries a request out while there is power; answers what goes back to the kernel (nothing, where that wants no
    /// answer), or `None` when there is no power, then or now.
    fn answer(&mut self, number: usize, session: &mut Session, request: &Request<'_>) -> Option<Vec<u8>> {
        if !self.is_on {
            return None;
        }
        self.operations += u64::from(request.counts());
        if request.counts() && Some(self.operations) == self.last {
            if self.random.bool() {
                session.answer(&mut self.disks[number], request);
            }
            self.lose_power();
            return None;
        }
        Some(session.answer(&mut self.disks[number], request))
    }
}

/// Mounts a disk; answers the device by which the kernel asks.
fn mount(folder: &Path) -> File {
    let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
    let options = "fd=0,rootmode=40000,user_id=0,group_id=0,default_permissions";
    let mut command = Command::new("mount");
    command.args(["-i", "-t", "fuse", "-o", options, "volatile"]).arg(folder).stdin(device.try_clone().unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    device
}

/// Answers the kernel until the disk is unmounted or the power goes: from then on, as the device is closed, whatever
/// is asked of the disk fails at once.
fn serve(mut device: File, shared: &Mutex<Shared>, number: usize) {
    let mut session = Session::default();
    let mut buffer = vec![0; LONGEST_REQUEST];
    loop {
        let length = match device.read(&mut buffer) {
            Ok(length) => length,
            // A request that was taken back before it was read.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let request = Request::parse(&buffer[..length]);
        match in_turn(shared).answer(number, &mut session, &request) {
            None => return,
            Some(reply) if reply.is_empty() => {}
            // It fails where the request was taken back meanwhile.
            Some(reply) => drop(device.write(&reply)),
        }
    }
}

/// What the disks share, when they don't hang.
fn in_turn(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    loop {
        let mut here = shared.lock().unwrap();
        if !here.hangs {
            return here;
        }
        here.is_awaited = true;
        drop(here);
        std::thread::sleep(LOOK_AGAIN);
    }
}
