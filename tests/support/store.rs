//! A small store on the loopback: what reading, listing, uploading, replacing and removing need of the protocols of S3, of
//! Google Cloud Storage (its XML side, which is S3's but for a few headers) and of Azure (`azure`), plain files over HTTP, and
//! faults on request. Signatures are not looked at.

mod azure;

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
    /// Another client writes the object first, as it is.
    Overtake,
}

/// One request, for tests that look at what was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: String,
    pub range: Option<(usize, usize)>,
    /// The object must be in this state: its tag, or a generation; `*` and `0`: none.
    pub condition: Option<Condition>,
    /// Whether the request speaks Azure's language.
    pub azure: bool,
    /// Bytes of the body that was sent back.
    pub sent: usize,
}

/// What a write asks of the object that it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Absent,
    Tag(String),
}

/// An object and how often its name was written.
#[derive(Debug, Clone)]
struct Object {
    bytes: Vec<u8>,
    generation: u64,
}

impl Object {
    fn tag(&self) -> String {
        format!("\"{}-{}\"", self.bytes.len(), self.generation)
    }
}

type Decide = dyn Fn(usize, &Asked) -> Fault + Send + Sync;

struct State {
    objects: Mutex<BTreeMap<String, Object>>,
    /// Parts by their number, or by the name that Azure's clients give them.
    uploads: Mutex<BTreeMap<String, BTreeMap<String, Vec<u8>>>>,
    generations: AtomicUsize,
    /// Uploads begun: two that begin at once must not share a name.
    begun: AtomicUsize,
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
            generations: AtomicUsize::new(1),
            begun: AtomicUsize::new(0),
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

    /// Variables under which a client finds the server as Google Cloud Storage.
    pub fn as_google(&self) -> Vec<(String, String)> {
        let address = format!("http://{}", self.address);
        [("GOOGLE_BASE_URL", address.as_str()), ("GOOGLE_ALLOW_HTTP", "true"), ("GOOGLE_BEARER_TOKEN", "token")]
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .to_vec()
    }

    /// Variables under which a client finds the server as Azure's blobs.
    pub fn as_azure(&self) -> Vec<(String, String)> {
        [
            ("AZURE_STORAGE_ENDPOINT", format!("http://{}", self.address).as_str()),
            ("AZURE_ALLOW_HTTP", "true"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .to_vec()
    }

    /// Puts an object; `path` is `bucket/key`.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        self.state.write(path, bytes);
    }

    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.state.objects.lock().expect("objects").get(path).map(|object| object.bytes.clone())
    }

    pub fn remove(&self, path: &str) {
        self.state.objects.lock().expect("objects").remove(path);
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

impl State {
    /// Writes an object; its new tag.
    fn write(&self, path: &str, bytes: Vec<u8>) -> Object {
        let object = Object { bytes, generation: self.generations.fetch_add(1, Ordering::SeqCst) as u64 };
        self.objects.lock().expect("objects").insert(path.to_string(), object.clone());
        object
    }

    /// Whether the object is in the state that a write asks for.
    fn allows(&self, asked: &Asked) -> bool {
        let objects = self.objects.lock().expect("objects");
        let there = objects.get(&asked.path);
        match &asked.condition {
            None => true,
            Some(Condition::Absent) => there.is_none(),
            Some(Condition::Tag(tag)) => {
                there.is_some_and(|object| object.tag() == *tag || object.generation.to_string() == *tag)
            }
        }
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
        let (mut length, mut range, mut continues, mut condition, mut azure) = (0, None, false, None, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.trim().split_once(':') else { break };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap_or(0),
                "expect" => continues = true,
                "x-ms-version" => azure = true,
                "if-none-match" if value == "*" => condition = Some(Condition::Absent),
                "x-goog-if-generation-match" if value == "0" => condition = Some(Condition::Absent),
                "if-match" | "x-goog-if-generation-match" => condition = Some(Condition::Tag(value.to_string())),
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
        let mut asked = Asked { method, path, query, range, condition, azure, sent: 0 };
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
            Fault::Overtake => {
                let there = state.objects.lock().expect("objects").get(&asked.path).cloned();
                there.into_iter().for_each(|object| drop(state.write(&asked.path, object.bytes)));
                if asked.azure { azure::answer(state, &asked, body) } else { answer(state, &asked, body) }
            }
            Fault::None | Fault::Truncate if asked.azure => azure::answer(state, &asked, body),
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

impl Asked {
    /// A value of the query.
    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(own, _)| *own == name).map(|(_, value)| decoded(value))
    }
}

fn xml(text: String) -> Answer {
    ("200 OK", vec![("Content-Type", "application/xml".to_string())], text.into_bytes())
}

/// An object, or what was asked of it.
fn sent(state: &State, asked: &Asked) -> Answer {
    let objects = state.objects.lock().expect("objects");
    let Some(object) = objects.get(&asked.path) else { return error("404 Not Found", "NoSuchKey") };
    let bytes = &object.bytes;
    // Reading a state that is gone by now.
    if asked.method == "GET" && matches!(&asked.condition, Some(Condition::Tag(tag)) if *tag != object.tag()) {
        return error("412 Precondition Failed", "PreconditionFailed");
    }
    let mut headers = described(object);
    headers.push(("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT".to_string()));
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

/// The state of an object, as S3 and as Google call it.
fn described(object: &Object) -> Vec<(&'static str, String)> {
    vec![("ETag", object.tag()), ("x-goog-generation", object.generation.to_string())]
}

/// Names and contents below a path.
fn below(state: &State, container: &str, prefix: &str) -> Vec<(String, Object)> {
    let container = format!("{}/", container.trim_end_matches('/'));
    let objects = state.objects.lock().expect("objects");
    let found = objects.iter().filter_map(|(name, object)| {
        let key = name.strip_prefix(&container)?;
        key.starts_with(prefix).then(|| (key.to_string(), object.clone()))
    });
    found.collect()
}

/// What stands between tags of a name.
fn texts_in(body: &[u8], tag: &str) -> Vec<String> {
    let body = String::from_utf8_lossy(body).into_owned();
    let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
    let rest = body.split(&open).skip(1);
    rest.filter_map(|rest| rest.split_once(&close).map(|(text, _)| text.to_string())).collect()
}

fn answer(state: &State, asked: &Asked, body: Vec<u8>) -> Answer {
    let parameter = |name: &str| asked.parameter(name);
    let refused = || error("412 Precondition Failed", "PreconditionFailed");
    let written = |object: Object| ("200 OK", described(&object), Vec::new());
    let uploads = || state.uploads.lock().expect("uploads");
    match (asked.method.as_str(), parameter("uploadId"), parameter("uploads")) {
        ("GET", ..) if parameter("list-type").is_some() => {
            let found = below(state, &asked.path, &parameter("prefix").unwrap_or_default());
            let found = found.iter().map(|(key, object)| {
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{}</ETag>\
                     <Size>{}</Size></Contents>",
                    object.tag(),
                    object.bytes.len()
                )
            });
            xml(format!(
                "<ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>",
                found.collect::<String>()
            ))
        }
        ("GET" | "HEAD", ..) => sent(state, asked),
        ("POST", ..) if parameter("delete").is_some() => {
            let names = texts_in(&body, "Key");
            names.iter().for_each(|name| {
                state.objects.lock().expect("objects").remove(&format!("{}/{name}", asked.path.trim_end_matches('/')));
            });
            let deleted = names.iter().map(|name| format!("<Deleted><Key>{name}</Key></Deleted>"));
            xml(format!("<DeleteResult>{}</DeleteResult>", deleted.collect::<String>()))
        }
        ("POST", _, Some(_)) => {
            let id = format!("upload-{}", state.begun.fetch_add(1, Ordering::SeqCst));
            uploads().insert(id.clone(), BTreeMap::new());
            xml(format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
        }
        ("PUT", Some(id), _) => {
            let mut uploads = uploads();
            let Some(upload) = uploads.get_mut(&id) else { return error("404 Not Found", "NoSuchUpload") };
            let tag = format!("\"{}\"", body.len());
            let number: usize = parameter("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
            upload.insert(format!("{number:05}"), body);
            ("200 OK", vec![("ETag", tag)], Vec::new())
        }
        ("POST", Some(id), _) => {
            let Some(parts) = uploads().remove(&id) else { return error("404 Not Found", "NoSuchUpload") };
            let object = state.write(&asked.path, parts.into_values().flatten().collect());
            let mut answer = xml(format!(
                "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
                object.tag()
            ));
            answer.1.extend(described(&object));
            answer
        }
        ("DELETE", Some(id), _) => {
            uploads().remove(&id);
            ("204 No Content", vec![], Vec::new())
        }
        ("DELETE", ..) => match state.objects.lock().expect("objects").remove(&asked.path) {
            Some(_) => ("204 No Content", vec![], Vec::new()),
            None => error("404 Not Found", "NoSuchKey"),
        },
        ("PUT", ..) if !state.allows(asked) => refused(),
        ("PUT", ..) => written(state.write(&asked.path, body)),
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
