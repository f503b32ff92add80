//! Words to the service manager (`sd_notify`), one datagram each.
//!
//! Sent here and not by the crate that names them, because its sender takes the socket from the environment
//! alone, which no test may change, and does not reach abstract sockets, which containers use.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

/// How long a word may wait for a service manager that does not listen.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often more time is asked for, and by how much each time.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTEND_BY: Duration = Duration::from_secs(30);

/// Speaks to the service manager; where there is none, says nothing.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    socket: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the service manager set the environment.
    pub fn from_env() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        Self { socket, watchdog: sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero()) }
    }

    /// With this socket and this watchdog.
    pub const fn with(socket: OsString, watchdog: Option<Duration>) -> Self {
        Self { socket: Some(socket), watchdog }
    }

    /// Without a sign of life for this long the service manager ends the daemon; `None`: it does not watch.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The start, or a reload, is complete.
    pub fn ready(&self, status: &str) {
        self.say(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// What `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.say(&[NotifyState::Status(&one_line(status))]);
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(since) => self.say(&[NotifyState::Reloading, since]),
            Err(error) => tracing::debug!(%error, "no monotonic time for the service manager"),
        }
    }

    /// The stop begins.
    pub fn stopping(&self, status: &str) {
        self.say(&[NotifyState::Stopping, NotifyState::Status(&one_line(status))]);
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.say(&[NotifyState::Watchdog]);
    }

    /// The start or stop takes this much longer from now on.
    pub fn extend(&self, by: Duration) {
        self.say(&[NotifyState::ExtendTimeoutUsec(u32::try_from(by.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// Waits for long work during the start or the stop, asking for time as long as it takes.
    pub async fn extending<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            if self.socket.is_some() {
                self.extend(EXTEND_BY);
            }
            if let Ok(done) = tokio::time::timeout(EXTEND_EVERY, &mut work).await {
                return done;
            }
        }
    }

    fn say(&self, words: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let mut text: String = words.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        text.push('\n');
        if let Err(error) = send(socket, &text) {
            tracing::debug!(%error, text = text.trim_end(), "the service manager was not reached");
        }
    }
}

fn send(socket: &OsStr, text: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.set_write_timeout(Some(PATIENCE))?;
    datagram.send_to_addr(text.as_bytes(), &address).map(drop)
}

/// A line break would begin another word.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A service manager that only listens.
    pub(in crate::lifecycle) struct Manager {
        socket: UnixDatagram,
        _folder: tempfile::TempDir,
    }

    impl Manager {
        pub(in crate::lifecycle) fn new(watchdog: Option<Duration>) -> (Self, Notifier) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_nonblocking(true).unwrap();
            (Self { socket, _folder: folder }, Notifier::with(path.into_os_string(), watchdog))
        }

        pub(in crate::lifecycle) fn heard(&self) -> Option<String> {
            let mut buffer = [0; 512];
            let length = self.socket.recv(&mut buffer).ok()?;
            Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
        }
    }

    #[test]
    fn each_word_is_a_datagram_as_the_protocol_has_it() {
        let (manager, notifier) = Manager::new(None);
        notifier.ready("3 watches\n2 pipelines");
        assert_eq!(manager.heard().unwrap(), "READY=1\nSTATUS=3 watches 2 pipelines\n");
        notifier.reloading();
        let reloading = manager.heard().unwrap();
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        notifier.stopping("draining");
        assert_eq!(manager.heard().unwrap(), "STOPPING=1\nSTATUS=draining\n");
        notifier.extend(Duration::from_secs(2));
        assert_eq!(manager.heard().unwrap(), "EXTEND_TIMEOUT_USEC=2000000\n");
    }

    #[tokio::test]
    async fn long_work_asks_for_time_before_it_begins() {
        let (manager, notifier) = Manager::new(None);
        assert_eq!(notifier.extending(async { 7 }).await, 7);
        assert_eq!(manager.heard().unwrap(), "EXTEND_TIMEOUT_USEC=30000000\n");
    }

    #[test]
    fn an_abstract_socket_is_reached_too() {
        let name = format!("ingestd-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        Notifier::with(format!("@{name}").into(), None).alive();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
    }

    #[test]
    fn without_a_service_manager_nothing_is_said() {
        Notifier::default().ready("fine");
        Notifier::with("/nonexistent/notify".into(), None).ready("fine");
    }
}
