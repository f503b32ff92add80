//! The command's end of the socket.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::hands::Refusal;
use super::request::{Duty, Request, Response};
use super::server::Short;
use super::{LINE_LIMIT, socket_path};

/// How long a connection may take: the daemon accepts at once unless it has all the connections it allows.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long an answer may take: a cancelled attempt has half a minute to end, and digests are read meanwhile.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);

/// How long the daemon may think about a question whose answer it has in memory.
const QUESTION_LIMIT: Duration = Duration::from_secs(20);

/// How long maintenance and scans may take.
const LONG_ANSWER_LIMIT: Duration = Duration::from_hours(6);

/// A connection to a running daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    /// See [`Client::is_lost`].
    lost: bool,
}

impl Client {
    /// Connects to the daemon on this database; `None` where none listens.
    pub async fn connect(database: &Path) -> Result<Option<Self>, Refusal> {
        let path = socket_path(database);
        let connected = async {
            let short = Short::of(&path)?;
            UnixStream::connect(short.path()).await
        };
        match timeout(CONNECT_LIMIT, connected).await {
            Ok(Ok(stream)) => Ok(Some(Self { stream: BufReader::new(stream), lost: false })),
            Ok(Err(error)) if nobody(&error) => Ok(None),
            Ok(Err(error)) => Err(Refusal::failed(format!("{}: {error}{}", path.display(), advice(&error, &path)))),
            Err(_) => Err(Refusal::failed(format!(
                "the daemon does not take a connection on {}; see its log, and restart it if it hangs",
                path.display()
            ))),
        }
    }

    /// Asks, and waits for the answer.
    pub async fn call(&mut self, request: &Request) -> Result<Value, Refusal> {
        // Until there is a whole answer, nobody knows what came of the request.
        self.lost = true;
        self.send(request).await?;
        let patience = patience(request);
        let answer = timeout(patience, self.next_answer()).await;
        answer.map_err(|_| {
            Refusal::failed(match request {
                Request::Ping | Request::Status => format!(
                    "the daemon has not answered for {}: it hangs, or was stopped; see its log, and restart it",
                    humantime::format_duration(patience)
                ),
                _ => "the daemon did not answer in time, so whether it is done is unknown; see its log".to_owned(),
            })
        })?
    }

    /// Whether the newest [`Self::call`] failed because of the connection, so that nobody knows whether it was carried
    /// out. What was refused in words is not lost.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Subscribes to changes; from then on only [`Self::changed`] may be called.
    pub async fn subscribe(&mut self) -> Result<(), Refusal> {
        self.send(&Request::Changes).await?;
        // The first answer says that the subscription stands: what is read after it is not older than it.
        self.next_answer().await.map(drop)
    }

    /// Resolves at the next change.
    pub async fn changed(&mut self) -> Result<(), Refusal> {
        self.next_answer().await.map(drop)
    }

    async fn send(&mut self, request: &Request) -> Result<(), Refusal> {
        let mut line = serde_json::to_vec(request)
            .map_err(|error| Refusal::failed(format!("the request can't be written: {error}")))?;
        line.push(b'\n');
        if line.len() > LINE_LIMIT {
            return Err(Refusal::usage("too much for one request; split it into several"));
        }
        let sent = timeout(ANSWER_LIMIT, self.stream.get_mut().write_all(&line)).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(gone(&error)),
            Err(_) => Err(Refusal::failed("the daemon does not read its socket; see its log")),
        }
    }

    async fn next_answer(&mut self) -> Result<Value, Refusal> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(LINE_LIMIT as u64);
        bounded.read_until(b'\n', &mut line).await.map_err(|error| gone(&error))?;
        if line.last() != Some(&b'\n') {
            return Err(gone(&io::ErrorKind::UnexpectedEof.into()));
        }
        self.lost = false;
        match serde_json::from_slice(&line) {
            Ok(Response::Ok(value)) => Ok(value),
            Ok(Response::Err { code, message }) => Err(Refusal { code, message }),
            Err(error) => Err(Refusal::failed(format!(
                "the daemon's answer is not understood ({error}); is it of another version? restart it"
            ))),
        }
    }
}

fn nobody(error: &io::Error) -> bool {
    // It is reset where the daemon ended before it took the connection: nothing was asked yet.
    let kinds = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused, io::ErrorKind::ConnectionReset];
    kinds.contains(&error.kind())
}

fn advice(error: &io::Error, socket: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    if error.kind() != io::ErrorKind::PermissionDenied {
        return String::new();
    }
    let folder = socket.parent().and_then(|folder| std::fs::metadata(folder).ok());
    match folder {
        Some(meta) => format!("; it belongs to user {}: run the command as that user (sudo -u)", meta.uid()),
        None => "; run the command as the daemon's user (sudo -u)".to_owned(),
    }
}

fn gone(error: &io::Error) -> Refusal {
    Refusal::failed(format!(
        "the daemon went away before it answered ({error}), so whether it was done is unknown; `ingestd status` shows what \
         came of it"
    ))
}

fn patience(request: &Request) -> Duration {
    match request {
        Request::Ping | Request::Status => QUESTION_LIMIT,
        Request::WatchScan { .. } => LONG_ANSWER_LIMIT,
        Request::Maintenance { duty } if !matches!(duty, Duty::Checkpoint) => LONG_ANSWER_LIMIT,
        _ => ANSWER_LIMIT,
    }
}
