//! The same store in the words of Azure's blobs: blocks and their lists instead of parts, removal in batches.

use super::{Answer, Asked, State, below, described, error, sent, texts_in, xml};

pub fn answer(state: &State, asked: &Asked, body: Vec<u8>) -> Answer {
    let what = asked.parameter("comp");
    match (asked.method.as_str(), what.as_deref()) {
        ("GET", Some("list")) => {
            let found = below(state, &asked.path, &asked.parameter("prefix").unwrap_or_default());
            let found = found.iter().map(|(name, object)| {
                format!(
                    "<Blob><Name>{name}</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified>\
                     <Content-Length>{}</Content-Length><Content-Type>application/octet-stream</Content-Type><Etag>{}</Etag>\
                     </Properties></Blob>",
                    object.bytes.len(),
                    object.tag()
                )
            });
            xml(format!(
                "<EnumerationResults><Blobs>{}</Blobs><NextMarker/></EnumerationResults>",
                found.collect::<String>()
            ))
        }
        ("GET" | "HEAD", None) => sent(state, asked),
        ("PUT", Some("block")) => {
            let mut uploads = state.uploads.lock().expect("uploads");
            let blocks = uploads.entry(asked.path.clone()).or_default();
            blocks.insert(asked.parameter("blockid").unwrap_or_default(), body);
            ("201 Created", vec![], Vec::new())
        }
        ("PUT", Some("blocklist")) => {
            let mut blocks = state.uploads.lock().expect("uploads").remove(&asked.path).unwrap_or_default();
            let whole: Option<Vec<Vec<u8>>> =
                texts_in(&body, "Uncommitted").iter().map(|id| blocks.remove(id)).collect();
            match whole {
                Some(whole) => ("201 Created", described(&state.write(&asked.path, whole.concat())), Vec::new()),
                None => error("400 Bad Request", "InvalidBlockList"),
            }
        }
        ("PUT", None) if !state.allows(asked) => error("412 Precondition Failed", "ConditionNotMet"),
        ("PUT", None) => ("201 Created", described(&state.write(&asked.path, body)), Vec::new()),
        ("DELETE", None) => match state.objects.lock().expect("objects").remove(&asked.path) {
            Some(_) => ("202 Accepted", vec![], Vec::new()),
            None => error("404 Not Found", "BlobNotFound"),
        },
        ("POST", Some("batch")) => batch(state, asked, &body),
        _ => error("405 Method Not Allowed", "MethodNotAllowed"),
    }
}

/// Answers `DELETE` requests that come together, each with its own number.
fn batch(state: &State, asked: &Asked, body: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(body).into_owned();
    let mut answer = String::new();
    for part in text.split("--batch_").skip(1).filter(|part| part.contains("DELETE ")) {
        let line = |start: &str| {
            let found = part.lines().find(|line| line.to_ascii_lowercase().starts_with(start));
            found.and_then(|line| line[start.len()..].split_whitespace().next()).unwrap_or_default().to_string()
        };
        let (id, path) = (line("content-id:"), super::decoded(line("delete /").split('?').next().unwrap_or_default()));
        let gone = state.objects.lock().expect("objects").remove(&path).is_some();
        let status = if gone { "202 Accepted" } else { "404 Not Found" };
        answer += &format!(
            "--answers\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n"
        );
    }
    let kind = "multipart/mixed; boundary=answers".to_string();
    assert!(asked.path.matches('/').count() <= 1, "a batch is sent to a container: {}", asked.path);
    ("202 Accepted", vec![("Content-Type", kind)], format!("{answer}--answers--\r\n").into_bytes())
}
