//! The daemon's end of the socket.
//!
//! 1. The socket is bound under a name of its own, given its permissions, and renamed into place: whoever can
//!    connect to it may, and what a dead daemon left there is replaced. The daemon's lock says that it is dead.
//! 2. There are at most [`CONNECTIONS`] connections; further ones wait in the kernel's queue.
//! 3. Each connection is a loop: read a line, carry it out, write the answer. A connection that says nothing is
//!    closed after a while, a line that does not end is refused, and so nobody holds memory or a place for ever.
//! 4. When the daemon stops, connections that wait for a line end at once, and requests that are being carried
//!    out end first.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::hands::{Hands, Refusal};
use super::request::{Request, Response};
use super::{LINE_LIMIT, execute, socket_path};

/// Connections at once.
const CONNECTIONS: usize = 64;

/// Of them, those that may listen for changes: the rest stays free for commands.
const SUBSCRIBERS: usize = 48;

/// How long a client may take to send its line, and to read an answer.
const CLIENT_LIMIT: Duration = Duration::from_secs(30);

/// Changes are told this far apart at least: what happens in between is one change.
const COALESCE: Duration = Duration::from_millis(100);

/// The longest path that fits into a socket's address, with its closing zero.
const SUN_PATH: usize = 108;

/// A bound socket; dropping it removes it, so it has to go before the daemon's lock does.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds the socket of this database. Only the holder of the daemon's lock may call it. Needs a runtime.
    pub fn bind(database: &Path, mode: u32) -> io::Result<Self> {
        let path = socket_path(database);
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let fresh = PathBuf::from(fresh);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(Short::of(&fresh)?.path())?;
        // Connecting takes the right to write; the rest of the bits is for the eye.
        fs::set_permissions(&fresh, Permissions::from_mode(mode & 0o777))?;
        fs::rename(&fresh, &path)?;
        Ok(Self { listener, path })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until `stop`, then until the requests in hand are done. Is not to be dropped before it resolves:
    /// requests would be cut short.
    pub async fn serve(self, hands: Arc<Hands>, stop: CancellationToken) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let subscribers = Arc::new(Semaphore::new(SUBSCRIBERS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
                let (stream, _) = self.listener.accept().await?;
                Ok::<_, io::Error>((stream, place))
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let connection = Connection {
                        stream: BufReader::new(stream),
                        hands: Arc::clone(&hands),
                        subscribers: Arc::clone(&subscribers),
                        stop: stop.clone(),
                    };
                    connections.spawn(async move {
                        connection.serve().await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Too many open files, most likely: trying again at once would spin.
                    tracing::warn!(%error, "control.accept failed");
                    sleep(Duration::from_secs(1)).await;
                }
            }
        }
        // Whoever comes now finds nobody, rather than a connection that is never answered.
        let _ = fs::remove_file(&self.path);
        while connections.join_next().await.is_some() {}
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

struct Connection {
    stream: BufReader<UnixStream>,
    hands: Arc<Hands>,
    subscribers: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Connection {
    /// One loop of requests; an error is the client's going away, which is nobody's concern.
    async fn serve(mut self) {
        let stop = self.stop.clone();
        loop {
            let request = tokio::select! {
                () = stop.cancelled() => return,
                request = self.request() => request,
            };
            let response = match request {
                Ok(None) | Err(Unheard::Gone) => return,
                Ok(Some(Request::Changes)) => return self.tell_changes().await,
                Ok(Some(request)) => execute(request, &self.hands).await,
                Err(Unheard::Nonsense(refusal)) => {
                    let _ = self.answer(&refusal.into()).await;
                    return;
                }
            };
            if self.answer(&response).await.is_err() {
                return;
            }
        }
    }

    async fn request(&mut self) -> Result<Option<Request>, Unheard> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(LINE_LIMIT as u64);
        match timeout(CLIENT_LIMIT, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) => return Ok(None),
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(Unheard::Gone),
        }
        if line.last() != Some(&b'\n') {
            if line.len() < LINE_LIMIT {
                return Err(Unheard::Gone);
            }
            let refusal = Refusal::usage(format!("a request may have {LINE_LIMIT} bytes; split it into several"));
            return Err(Unheard::Nonsense(refusal));
        }
        serde_json::from_slice(&line).map(Some).map_err(|error| {
            let refusal = Refusal::usage(format!("the request is not understood ({error}); are both of one version?"));
            Unheard::Nonsense(refusal)
        })
    }

    async fn answer(&mut self, response: &Response) -> io::Result<()> {
        let mut line = serde_json::to_vec(response).map_err(io::Error::other)?;
        if line.len() >= LINE_LIMIT {
            let refusal = Refusal::failed("the answer is too long for one line; ask for less at once");
            line = serde_json::to_vec(&Response::from(refusal)).map_err(io::Error::other)?;
        }
        line.push(b'\n');
        timeout(CLIENT_LIMIT, self.stream.get_mut().write_all(&line)).await.map_err(io::Error::other)?
    }

    /// One answer at once, then one for each change, until the client goes away or the daemon stops.
    async fn tell_changes(mut self) {
        let subscribers = Arc::clone(&self.subscribers);
        let (Some(live), Ok(_place)) = (self.hands.live.clone(), subscribers.try_acquire()) else {
            let refusal = Refusal::failed("too many commands wait for changes already; end some of them");
            let _ = self.answer(&refusal.into()).await;
            return;
        };
        let stop = self.stop.clone();
        let mut changes = live.changes();
        changes.mark_unchanged();
        let mut byte = [0; 1];
        loop {
            let generation = *changes.borrow();
            if self.answer(&Response::Ok(generation.into())).await.is_err() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                // A client has nothing to say here: whatever is read means that it is done.
                _ = self.stream.read(&mut byte) => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            sleep(COALESCE).await;
            changes.mark_unchanged();
        }
    }
}

/// Why there is no request to carry out.
enum Unheard {
    Gone,
    Nonsense(Refusal),
}

/// A path that fits into a socket's address: the path itself, or one through an open descriptor of its folder.
#[derive(Debug)]
pub(super) struct Short {
    path: PathBuf,
    _folder: Option<File>,
}

impl Short {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() < SUN_PATH {
            return Ok(Self { path: path.to_path_buf(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let folder = fs::OpenOptions::new().read(true).custom_flags(flags).open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Client;
    use crate::control::fake::{Fake, hands};
    use crate::control::request::{Code, LiveStatus, Pong, SteerAnswer, SteerResult};
    use crate::job::{JobId, StateName};

    struct Daemon {
        stop: CancellationToken,
        serving: JoinSet<io::Result<()>>,
        fake: Arc<Fake>,
        database: PathBuf,
        _folder: tempfile::TempDir,
    }

    /// A daemon's socket in a folder whose path is `depth` folders deeper than the temporary one.
    fn daemon(depth: usize) -> Daemon {
        let folder = tempfile::tempdir().unwrap();
        let deep = (0..depth).fold(folder.path().to_path_buf(), |path, _| path.join("a-rather-long-name-of-a-folder"));
        fs::create_dir_all(&deep).unwrap();
        let database = deep.join("ingestd.db");
        let fake = Arc::new(Fake::default());
        let listener = Listener::bind(&database, 0o600).unwrap();
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(listener.serve(Arc::new(hands(&fake, true)), stop.clone()));
        Daemon { stop, serving, fake, database, _folder: folder }
    }

    impl Daemon {
        async fn client(&self) -> Client {
            Client::connect(&self.database).await.unwrap().unwrap()
        }

        async fn end(mut self) -> PathBuf {
            self.stop.cancel();
            self.serving.join_next().await.unwrap().unwrap().unwrap();
            self.database.clone()
        }
    }

    #[tokio::test]
    async fn requests_and_answers_alternate_on_one_connection() {
        let daemon = daemon(0);
        let mut client = daemon.client().await;
        let pong: Pong = serde_json::from_value(client.call(&Request::Ping).await.unwrap()).unwrap();
        assert_eq!(pong.pid, std::process::id());
        let status: LiveStatus = serde_json::from_value(client.call(&Request::Status).await.unwrap()).unwrap();
        assert_eq!(status.warnings[0].message, "a warning");
        let refused = client.call(&Request::KvDelete { key: "none".to_owned() }).await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound);
        daemon.end().await;
    }

    #[tokio::test]
    async fn a_folder_deeper_than_a_socket_address_serves_as_well() {
        let daemon = daemon(6);
        assert!(daemon.database.as_os_str().len() > SUN_PATH);
        daemon.client().await.call(&Request::Ping).await.unwrap();
        daemon.end().await;
    }

    #[tokio::test]
    async fn nobody_is_there_before_and_after() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Client::connect(&folder.path().join("ingestd.db")).await.unwrap().is_none());
        let daemon = daemon(0);
        let stopped = daemon.end().await;
        assert!(!socket_path(&stopped).exists());
    }

    #[tokio::test]
    async fn what_a_dead_daemon_left_is_no_daemon_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("ingestd.db");
        drop(std::os::unix::net::UnixListener::bind(socket_path(&database)).unwrap());
        assert!(Client::connect(&database).await.unwrap().is_none());
        let listener = Listener::bind(&database, 0o660).unwrap();
        assert!(Client::connect(&database).await.unwrap().is_some());
        let mode = fs::metadata(listener.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
    }

    #[tokio::test]
    async fn a_running_job_is_stopped_and_the_answer_waits_for_its_end() {
        let daemon = daemon(0);
        daemon.fake.put(JobId(1), StateName::Running);
        daemon.fake.put(JobId(2), StateName::Pending);
        daemon.fake.put(JobId(3), StateName::Completed);
        let ids = vec![JobId(1), JobId(2), JobId(3), JobId(4)];
        let answer = daemon.client().await.call(&Request::Cancel { ids }).await.unwrap();
        let answers: Vec<SteerAnswer> = serde_json::from_value(answer).unwrap();
        assert_eq!(answers[0].result, SteerResult::Done);
        assert_eq!(answers[1].result, SteerResult::Done);
        assert!(matches!(answers[2].result, SteerResult::Refused { .. }));
        assert_eq!(answers[3].result, SteerResult::Unknown);
        assert_eq!(daemon.fake.state(JobId(1)), Some(StateName::Cancelled));
        daemon.end().await;
    }

    #[tokio::test]
    async fn changes_are_told_as_they_come() {
        let daemon = daemon(0);
        let mut client = daemon.client().await;
        client.subscribe().await.unwrap();
        daemon.fake.put(JobId(1), StateName::Completed);
        client.changed().await.unwrap();
        // Nothing happened since, so nothing comes.
        assert!(timeout(COALESCE * 3, client.changed()).await.is_err());
        daemon.end().await;
    }

    #[tokio::test]
    async fn nonsense_is_refused_and_the_connection_closed() {
        let daemon = daemon(0);
        let mut stream = UnixStream::connect(socket_path(&daemon.database)).await.unwrap();
        stream.write_all(b"{\"request\":\"dance\"}\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let response: Response = serde_json::from_str(&answer).unwrap();
        assert!(matches!(response, Response::Err { code: Code::Usage, .. }));
        daemon.end().await;
    }

    #[tokio::test]
    async fn idle_connections_do_not_keep_the_daemon_from_stopping() {
        let daemon = daemon(0);
        let mut idle = daemon.client().await;
        idle.call(&Request::Ping).await.unwrap();
        timeout(CLIENT_LIMIT / 2, daemon.end()).await.unwrap();
    }
}
