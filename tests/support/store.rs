//! A small store on the loopback: what S3's protocol needs for reading, listing and uploading, plain files over HTTP, and
//! faults on request. Signatures are not looked at.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// 503 SlowDown.
    Throttle,
    /// 500 InternalError.
    Broken,
    /// The connection ends without an answer.
    Reset,
    /// Half of the body, then the connection ends.
    Truncate,
    /// 403 AccessDenied.
    Deny,
    /// No answer for a long time.
    Stall,
}

/// One request, for tests that look at what was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub range: Option<(usize, usize)>,
    /// Bytes of the body that was sent back.
    pub sent: usize,
}

type Decide = dyn Fn(usize, &Asked) -> Fault + Send + Sync;

struct State {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    uploads: Mutex<BTreeMap<String, BTreeMap<usize, Vec<u8>>>>,
    asked: Mutex<Vec<Asked>>,
    count: AtomicUsize,
    stopped: AtomicBool,
    ranges: bool,
    decide: Box<Decide>,
}

/// A server that ends with the value.
pub struct Server {
    pub address: String,
    state: Arc<State>,
}

impl Server {
    /// A server without faults.
    pub fn start() -> Server {
        Server::with(true, |_, _| Fault::None)
    }

    /// `decide` is asked about every request, with its number from 0.
    pub fn faulty(decide: impl Fn(usize, &Asked) -> Fault + Send + Sync + 'static) -> Server {
        Server::with(true, decide)
    }

    /// A web server that knows no ranges.
    pub fn without_ranges() -> Server {
        Server::with(false, |_, _| Fault::None)
    }

    fn with(ranges: bool, decide: impl Fn(usize, &Asked) -> Fault + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on the loopback");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State {
            objects: Mutex::default(),
            uploads: Mutex::default(),
            asked: Mutex::default(),
            count: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            ranges,
            decide: Box::new(decide),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (state, Ok(connection)) = (shared.clone(), connection) else { continue };
                std::thread::spawn(move || {
                    // A client that is gone is no business of the server.
                    let _ = serve(&state, connection);
                });
            }
        });
        Server { address, state }
    }

    /// Variables under which a client finds the server as S3.
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address).as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .to_vec()
    }

    /// Puts an object; `path` is `bucket/key`.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.objects.lock().expect("objects").insert(path.to_string(), bytes);
    }

    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.state.objects.lock().expect("objects").get(path).cloned()
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        self.state.objects.lock().expect("objects").keys().cloned().collect()
    }

    /// Uploads that were begun and neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state.uploads.lock().expect("uploads").len()
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().expect("requests").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener up.
        let _ = TcpStream::connect(&self.address);
    }
}

/// An answer: status, further headers, body.
type Answer = (&'static str, Vec<(&'static str, String)>, Vec<u8>);

fn serve(state: &State, connection: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    let mut writer = connection;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default().to_string(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (decoded(path.trim_start_matches('/')), query.to_string());
        let (mut length, mut range, mut continues) = (0, None, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "expect" => continues = true,
                "range" => {
                    let ends = value.trim_start_matches("bytes=").split_once('-');
                    range =
                        ends.and_then(|(from, to)| Some((from.parse().ok()?, to.parse().unwrap_or(usize::MAX - 1))));
                }
                _ => {}
            }
        }
        if continues {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut asked = Asked { method, path, query, range, sent: 0 };
        let asked_for_head = asked.method == "HEAD";
        let number = state.count.fetch_add(1, Ordering::SeqCst);
        let fault = (state.decide)(number, &asked);
        let (status, headers, body) = match fault {
            Fault::Reset => return Ok(()),
            Fault::Stall => {
                std::thread::sleep(Duration::from_secs(20));
                return Ok(());
            }
            Fault::Throttle => error("503 Slow Down", "SlowDown"),
            Fault::Broken => error("500 Internal Server Error", "InternalError"),
            Fault::Deny => error("403 Forbidden", "AccessDenied"),
            Fault::None | Fault::Truncate => answer(state, &asked, body),
        };
        let mut head = format!("HTTP/1.1 {status}\r\n");
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        writer.write_all(format!("{head}\r\n").as_bytes())?;
        let body = if asked_for_head { Vec::new() } else { body };
        let body = if fault == Fault::Truncate { &body[..body.len() / 2] } else { &body };
        asked.sent = body.len();
        state.asked.lock().expect("requests").push(asked);
        writer.write_all(body)?;
        writer.flush()?;
        if fault == Fault::Truncate {
            return Ok(());
        }
    }
}

fn error(status: &'static str, code: &str) -> Answer {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as asked for</Message></Error>");
    (status, vec![("Content-Type", "application/xml".into())], body.into_bytes())
}

fn answer(state: &State, asked: &Asked, body: Vec<u8>) -> Answer {
    let parameter = |name: &str| {
        let mut pairs = asked.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(own, _)| *own == name).map(|(_, value)| decoded(value))
    };
    let mut objects = state.objects.lock().expect("objects");
    let mut uploads = state.uploads.lock().expect("uploads");
    let xml = |text: String| ("200 OK", vec![("Content-Type", "application/xml".to_string())], text.into_bytes());
    let tag = |bytes: &[u8]| format!("\"{}-{}\"", bytes.len(), bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    match (asked.method.as_str(), parameter("uploadId"), parameter("uploads")) {
        ("GET", ..) if parameter("list-type").is_some() => {
            let bucket = format!("{}/", asked.path.trim_end_matches('/'));
            let prefix = format!("{bucket}{}", parameter("prefix").unwrap_or_default());
            let found = objects.iter().filter(|(name, _)| name.starts_with(&prefix)).map(|(name, bytes)| {
                let key = &name[bucket.len()..];
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{}</ETag>\
                     <Size>{}</Size></Contents>",
                    tag(bytes),
                    bytes.len()
                )
            });
            xml(format!(
                "<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
                found.collect::<String>()
            ))
        }
        ("GET" | "HEAD", ..) => {
            let Some(bytes) = objects.get(&asked.path) else { return error("404 Not Found", "NoSuchKey") };
            let mut headers =
                vec![("ETag", tag(bytes)), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT".to_string())];
            if asked.method == "HEAD" {
                headers.push(("Content-Length", bytes.len().to_string()));
                return ("200 OK", headers, Vec::new());
            }
            match asked.range {
                Some((from, to)) if state.ranges && from < bytes.len() => {
                    let to = to.min(bytes.len() - 1);
                    headers.push(("Content-Range", format!("bytes {from}-{to}/{}", bytes.len())));
                    ("206 Partial Content", headers, bytes[from..=to].to_vec())
                }
                _ => ("200 OK", headers, bytes.clone()),
            }
        }
        ("POST", _, Some(_)) => {
            let id = format!("upload-{}", state.count.load(Ordering::SeqCst));
            uploads.insert(id.clone(), BTreeMap::new());
            xml(format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
        }
        ("PUT", Some(id), _) => {
            let tag = tag(&body);
            let Some(upload) = uploads.get_mut(&id) else { return error("404 Not Found", "NoSuchUpload") };
            upload.insert(parameter("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0), body);
            ("200 OK", vec![("ETag", tag)], Vec::new())
        }
        ("POST", Some(id), _) => {
            let Some(parts) = uploads.remove(&id) else { return error("404 Not Found", "NoSuchUpload") };
            let whole: Vec<u8> = parts.into_values().flatten().collect();
            let tag = tag(&whole);
            objects.insert(asked.path.clone(), whole);
            xml(format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"))
        }
        ("DELETE", Some(id), _) => {
            uploads.remove(&id);
            ("204 No Content", vec![], Vec::new())
        }
        ("PUT", ..) => {
            let tag = tag(&body);
            objects.insert(asked.path.clone(), body);
            ("200 OK", vec![("ETag", tag)], Vec::new())
        }
        _ => error("405 Method Not Allowed", "MethodNotAllowed"),
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits: Vec<u8> = rest.by_ref().take(2).collect();
                let digits = String::from_utf8_lossy(&digits).into_owned();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
