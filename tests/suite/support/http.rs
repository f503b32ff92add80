//! A web server on the loopback that answers as told and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A status, headers and a body.
    Status(u16, Vec<(String, String)>, String),
    /// A body in pieces, with a pause after each.
    Slowly(Slow),
    /// Nothing, for as long as the server lives.
    Hang,
    /// The connection is closed without a word.
    Close,
}

impl Answer {
    /// A bare status.
    pub fn status(code: u16) -> Self {
        Self::Status(code, Vec::new(), String::new())
    }

    /// A status with a header.
    pub fn with(code: u16, name: &str, value: &str) -> Self {
        Self::Status(code, vec![(name.to_owned(), value.to_owned())], String::new())
    }
}

/// A body that takes its time.
#[derive(Clone, Debug)]
pub struct Slow {
    /// All of it.
    pub body: Vec<u8>,
    /// How much of it is sent at once.
    pub piece: usize,
    /// The wait after each piece.
    pub pause: Duration,
    /// The connection is closed after so many bytes, whatever was promised.
    pub cut_at: usize,
}

impl Slow {
    /// Answers a request: all of it, or the rest that its `Range` asks for.
    fn send(&self, request: &Received, stream: &mut TcpStream) -> std::io::Result<()> {
        let asked = request.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        let from: usize = asked.and_then(|from| from.parse().ok()).unwrap_or(0);
        let (total, rest) = (self.body.len(), &self.body[from..]);
        let status = match asked {
            Some(_) => format!("206 Told\r\nContent-Range: bytes {from}-{}/{total}", total - 1),
            None => "200 Told".to_owned(),
        };
        write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", rest.len())?;
        for piece in rest[..rest.len().min(self.cut_at)].chunks(self.piece) {
            stream.write_all(piece)?;
            std::thread::sleep(self.pause);
        }
        Ok(())
    }
}

/// A request that came in whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// When it was whole.
    pub at: Instant,
    /// `POST`, …
    pub method: String,
    /// With the query.
    pub target: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Decoded where it was chunked.
    pub body: Vec<u8>,
}

impl Received {
    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

type Script = dyn Fn(&Received, usize) -> Answer + Send + Sync;

/// The server; dropped, it stops listening and hangs up.
pub struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    hanging: Arc<Mutex<Vec<TcpStream>>>,
    stopped: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers by `script`, which is told the request and how many came before it on the same target.
    pub fn new(script: impl Fn(&Received, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (received, hanging) = (Arc::default(), Arc::default());
        let stopped = Arc::new(AtomicBool::new(false));
        let hand = Hand { script: Arc::new(script), received: Arc::clone(&received), hanging: Arc::clone(&hanging) };
        let stop = Arc::clone(&stopped);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let hand = hand.clone();
                std::thread::spawn(move || hand.serve(stream));
            }
        });
        Self { address, received, hanging, stopped, acceptor: Some(acceptor) }
    }

    /// The same answer to everything.
    pub fn always(answer: Answer) -> Self {
        Self::new(move |_, _| answer.clone())
    }

    /// An address on it.
    pub fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address)
    }

    /// Its host and port.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Every request so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.hanging.lock().unwrap().clear();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

#[derive(Clone)]
struct Hand {
    script: Arc<Script>,
    received: Arc<Mutex<Vec<Received>>>,
    hanging: Arc<Mutex<Vec<TcpStream>>>,
}

impl Hand {
    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = read_request(&stream) else {
            // Not HTTP; a TLS handshake for instance, which sees then that nobody speaks TLS here.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            return;
        };
        let before = {
            let mut received = self.received.lock().unwrap();
            let before = received.iter().filter(|other| other.target == request.target).count();
            received.push(request.clone());
            before
        };
        match (self.script)(&request, before) {
            Answer::Close => {}
            // A client that has gone away is its own affair.
            Answer::Slowly(slow) => drop(slow.send(&request, &mut stream)),
            Answer::Hang => self.hanging.lock().unwrap().push(stream),
            Answer::Status(code, headers, body) => {
                let mut text =
                    format!("HTTP/1.1 {code} Told\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
                for (name, value) in headers {
                    text.extend([name.as_str(), ": ", value.as_str(), "\r\n"]);
                }
                let _ = stream.write_all(format!("{text}\r\n{body}").as_bytes());
            }
        }
    }
}

fn read_request(stream: &TcpStream) -> Option<Received> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok());
    let body = match length {
        Some(length) => read_exactly(&mut reader, length)?,
        None if headers.contains_key("transfer-encoding") => read_chunks(&mut reader)?,
        None => Vec::new(),
    };
    Some(Received { at: Instant::now(), method, target, headers, body })
}

fn read_exactly(reader: &mut impl Read, length: usize) -> Option<Vec<u8>> {
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(body)
}

fn read_chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        body.extend(read_exactly(reader, size)?);
        read_exactly(reader, 2)?;
        if size == 0 {
            return Some(body);
        }
    }
}
