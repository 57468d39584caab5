//! Transcripts: one behaviour of one dialect as a file of lines, played against any [`Stage`].
//!
//! The line forms are described in CONTRIBUTING.md. A transcript knows nothing of how it is played: the same file runs
//! against the pure session and hub, and again over a real socket.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

/// A request that a transcript makes.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    pub upgrade: bool,
}

/// What a client sees next.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    Text(String),
    Close(u16),
    Http(u16, String),
    Nothing,
}

/// A command as it reached the scripted driver.
#[derive(Clone, Debug, PartialEq)]
pub struct Reached {
    pub device: String,
    /// `read`, `write` or `invoke`.
    pub verb: String,
    /// The function of an invoke.
    pub function: Option<String>,
    pub values: Vec<(String, Json)>,
}

/// What a command's outcome is to be.
#[derive(Clone, Debug)]
pub enum Settle {
    Confirmed(Vec<(String, Json)>),
    Outputs(Vec<(String, Json)>),
    Refused(String),
    Mismatch(String, Json, Json),
    Expired,
    Superseded(String),
    TooSoon(String, Duration),
    TimedOut,
    Busy,
}

/// Where a transcript is played. Methods panic with a sentence when the world breaks.
pub trait Stage {
    /// Opens connection number `at`; an accepted upgrade shows nothing, anything else answers by HTTP.
    fn open(&mut self, at: usize, request: &Request);
    /// Whether the upgrade of connection `at` was accepted.
    fn accepted(&mut self, at: usize) -> bool;
    fn send(&mut self, at: usize, text: &str);
    /// The next thing that connection `at` sees. `expect_nothing` lets a real stage wait only briefly.
    fn next(&mut self, at: usize, expect_nothing: bool) -> Seen;
    fn drop_client(&mut self, at: usize);
    fn observe(&mut self, device: &str, values: &[(String, Json)]);
    fn presence(&mut self, device: &str, online: bool);
    fn publish(&mut self, device: &str, topic: &str, payload: &str);
    fn event(&mut self, device: &str, event: &str, params: &Json);
    fn ota(&mut self, device: &str, step: i32, detail: &str);
    /// The oldest command that reached the driver and was not looked at yet.
    fn command(&mut self, expect_nothing: bool) -> Option<Reached>;
    /// Settles the oldest unsettled command, or that of one device.
    fn settle(&mut self, device: Option<&str>, outcome: &Settle);
    fn wait(&mut self, time: Duration);
}

/// Every transcript of a dialect, in name order.
pub fn files(dialect: &str) -> Vec<PathBuf> {
    super::files::paths(&format!("tests/transcripts/{dialect}"), "txt")
}

/// Whether a transcript lets time pass, which only the pure stage can.
pub fn waits(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("@ wait"))
}

/// Plays a transcript; an error says which line and what was seen instead.
pub fn play(text: &str, stage: &mut dyn Stage) -> Result<(), String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut at = 0;
    let mut kept: Vec<(String, String)> = Vec::new();
    while let Some(line) = lines.get(at) {
        let number = at + 1;
        at += 1;
        let line = &filled(line.trim_end(), &kept);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fail = |what: String| format!("line {number}: {line}\n    {what}");
        if let Some(directive) = line.strip_prefix("@ ") {
            let body = lines.get(at).and_then(|next| next.strip_prefix("> "));
            let body = body.map(|body| filled(body, &kept));
            let taken = direct(directive, body.as_deref(), stage).map_err(fail)?;
            at += usize::from(taken);
        } else if let Some(expected) = line.strip_prefix("! ") {
            reach(expected, stage).map_err(fail)?;
        } else {
            let (connection, rest) = split_number(line);
            if let Some(text) = rest.strip_prefix('>') {
                stage.send(connection, &unescape(text.strip_prefix(' ').unwrap_or(text)));
            } else if let Some(expected) = rest.strip_prefix("< ") {
                let seen = stage.next(connection, expected == "nothing");
                matches(expected, &seen).map_err(fail)?;
                if let (true, Seen::Text(text) | Seen::Http(_, text)) = (expected.contains("<keep "), &seen) {
                    let expected = expected.find('{').and_then(|at| expected.get(at..)).unwrap_or_default();
                    keep(&parsed(expected)?, &parsed(text)?, &mut kept);
                }
            } else {
                return Err(fail("is no line of a transcript".to_owned()));
            }
        }
    }
    Ok(())
}

/// The line with what was kept in its places.
fn filled(line: &str, kept: &[(String, String)]) -> String {
    kept.iter().fold(line.to_owned(), |line, (name, text)| line.replace(&format!("<kept {name}>"), text))
}

fn parsed(text: &str) -> Result<Json, String> {
    serde_json::from_str(text).map_err(|error| format!("only texts in JSON can be kept: {error}"))
}

/// Takes the texts that stand where `"<keep NAME>"` is expected.
fn keep(expected: &Json, seen: &Json, kept: &mut Vec<(String, String)>) {
    match (expected, seen) {
        (Json::String(mark), Json::String(text)) => {
            if let Some(name) = mark.strip_prefix("<keep ").and_then(|name| name.strip_suffix('>')) {
                kept.retain(|(known, _)| known != name);
                kept.push((name.to_owned(), text.clone()));
            }
        }
        (Json::Object(expected), Json::Object(seen)) => {
            for (name, expected) in expected {
                keep(expected, seen.get(name).unwrap_or(&Json::Null), kept);
            }
        }
        _ => {}
    }
}

fn split_number(line: &str) -> (usize, &str) {
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = line.split_at(digits);
    (number.parse().unwrap_or(1), rest)
}

/// Carries out an `@` line; true when it took the following `> ` line as its body.
fn direct(directive: &str, body: Option<&str>, stage: &mut dyn Stage) -> Result<bool, String> {
    let (verb, rest) = directive.split_once(' ').unwrap_or((directive, ""));
    match verb {
        "get" | "post" | "options" | "delete" | "put" => {
            let mut request = parse_request(&verb.to_uppercase(), rest, false);
            let takes_body = verb == "post" && body.is_some();
            if takes_body {
                request.body = unescape(body.unwrap_or_default());
            }
            stage.open(1, &request);
            return Ok(takes_body);
        }
        "connect" | "second" | "third" => {
            let at = match verb {
                "connect" => 1,
                "second" => 2,
                _ => 3,
            };
            stage.open(at, &parse_request("GET", rest, true));
            if !stage.accepted(at) {
                return Err(format!("the upgrade was not accepted: {:?}", stage.next(at, false)));
            }
        }
        "refused" => {
            stage.open(1, &parse_request("GET", rest, true));
            if stage.accepted(1) {
                return Err("the upgrade was accepted".to_owned());
            }
        }
        "observe" => {
            let (device, values) = rest.split_once(' ').ok_or("names no values")?;
            stage.observe(device, &assignments(values)?);
        }
        "online" => stage.presence(rest, true),
        "offline" => stage.presence(rest, false),
        "publish" => {
            let mut parts = rest.splitn(3, ' ');
            let (device, topic) = (parts.next().unwrap_or_default(), parts.next().ok_or("names no topic")?);
            stage.publish(device, topic, parts.next().unwrap_or_default());
        }
        "event" => {
            let mut parts = rest.splitn(3, ' ');
            let (device, event) = (parts.next().unwrap_or_default(), parts.next().ok_or("names no event")?);
            let params = parts.next().unwrap_or("{}");
            stage.event(device, event, &serde_json::from_str(params).map_err(|error| error.to_string())?);
        }
        "ota" => {
            let mut parts = rest.splitn(3, ' ');
            let (device, step) = (parts.next().unwrap_or_default(), parts.next().ok_or("names no step")?);
            let step = step.parse().map_err(|_| "names no step")?;
            stage.ota(device, step, parts.next().unwrap_or_default());
        }
        "settle" => {
            let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
            if OUTCOMES.contains(&first) {
                stage.settle(None, &parse_settle(first, after)?);
            } else {
                let (word, after) = after.split_once(' ').unwrap_or((after, ""));
                stage.settle(Some(first), &parse_settle(word, after)?);
            }
        }
        "wait" => stage.wait(parse_duration(rest)?),
        "drop" => stage.drop_client(rest.trim().parse().map_err(|_| "names no connection")?),
        other => return Err(format!("unknown directive {other}")),
    }
    Ok(false)
}

const OUTCOMES: [&str; 9] =
    ["confirmed", "outputs", "refused", "mismatch", "expired", "superseded", "too-soon", "timeout", "busy"];

fn parse_settle(word: &str, rest: &str) -> Result<Settle, String> {
    Ok(match word {
        "confirmed" => Settle::Confirmed(assignments(rest)?),
        "outputs" => Settle::Outputs(assignments(rest)?),
        "refused" => Settle::Refused(rest.trim_matches('"').to_owned()),
        "mismatch" => {
            // `mismatch setpoint 50.0 49.0`: written, then read back.
            let parts: Vec<&str> = rest.split(' ').collect();
            let json = |at: usize| parts.get(at).and_then(|text| serde_json::from_str(text).ok());
            Settle::Mismatch(
                parts.first().copied().unwrap_or_default().to_owned(),
                json(1).ok_or("names no written value")?,
                json(2).ok_or("names no value read back")?,
            )
        }
        "expired" => Settle::Expired,
        "superseded" => Settle::Superseded(rest.to_owned()),
        "too-soon" => {
            let (id, every) = rest.split_once(' ').ok_or("names no property and time")?;
            Settle::TooSoon(id.to_owned(), parse_duration(every)?)
        }
        "timeout" => Settle::TimedOut,
        "busy" => Settle::Busy,
        other => return Err(format!("unknown outcome {other}")),
    })
}

fn parse_request(method: &str, rest: &str, upgrade: bool) -> Request {
    let (target, mut rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let mut headers = Vec::new();
    while let Some((header, after)) =
        rest.trim_start().strip_prefix('[').and_then(|open| open.split_once(']'))
    {
        if let Some((name, value)) = header.split_once(':') {
            headers.push((name.trim().to_lowercase(), value.trim().to_owned()));
        }
        rest = after;
    }
    Request { method: method.to_owned(), target: target.to_owned(), headers, body: String::new(), upgrade }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_alphabetic()).ok_or("names no unit of time")?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.trim().parse().map_err(|_| "names no number")?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3600)),
        other => Err(format!("unknown unit of time {other}")),
    }
}

/// `a=1 b="x"`, where a value is JSON without spaces outside strings.
fn assignments(text: &str) -> Result<Vec<(String, Json)>, String> {
    let mut rest = text.trim_start();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or_else(|| format!("{rest:?} is no name=value"))?;
        let mut stream = serde_json::Deserializer::from_str(after).into_iter::<Json>();
        let value = stream.next().ok_or("a value is missing")?.map_err(|error| error.to_string())?;
        found.push((name.to_owned(), value));
        rest = after.split_at(stream.byte_offset()).1.trim_start();
    }
    Ok(found)
}

fn reach(expected: &str, stage: &mut dyn Stage) -> Result<(), String> {
    let reached = stage.command(expected == "nothing");
    if expected == "nothing" {
        return reached.map_or(Ok(()), |command| Err(format!("but reached: {command:?}")));
    }
    let Some(reached) = reached else { return Err("no command reached the driver".to_owned()) };
    let mut words = expected.splitn(3, ' ');
    let (verb, device) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let rest = words.next().unwrap_or_default();
    let wanted = match verb {
        "read" => Reached {
            device: device.to_owned(),
            verb: verb.to_owned(),
            function: None,
            values: rest.split_whitespace().map(|id| (id.to_owned(), Json::Null)).collect(),
        },
        "write" => Reached {
            device: device.to_owned(),
            verb: verb.to_owned(),
            function: None,
            values: assignments(rest)?,
        },
        "invoke" => {
            let (function, inputs) = rest.split_once(' ').unwrap_or((rest, ""));
            Reached {
                device: device.to_owned(),
                verb: verb.to_owned(),
                function: Some(function.to_owned()),
                values: assignments(inputs)?,
            }
        }
        other => return Err(format!("unknown command {other}")),
    };
    if reached == wanted { Ok(()) } else { Err(format!("but reached: {reached:?}")) }
}

/// `\n \r \0 \t \\` and nothing else.
pub fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('0') => out.push('\0'),
            Some('t') => out.push('\t'),
            // Any other escape belongs to the JSON that stands in the line.
            Some(other) if other != '\\' => out.extend(['\\', other]),
            Some(_) | None => out.push('\\'),
        }
    }
    out
}

fn matches(expected: &str, seen: &Seen) -> Result<(), String> {
    let wrong = || Err(format!("but saw: {}", show(seen)));
    match seen {
        Seen::Nothing => {
            if expected == "nothing" {
                Ok(())
            } else {
                wrong()
            }
        }
        Seen::Close(code) => match expected.strip_prefix("close") {
            Some(want) if want.trim().is_empty() || want.trim().parse() == Ok(*code) => Ok(()),
            _ => wrong(),
        },
        Seen::Http(status, body) => {
            let Some((want, want_body)) =
                expected.strip_prefix("http ").map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
            else {
                return wrong();
            };
            if want.parse() != Ok(*status) || !(want_body.is_empty() || text_matches(want_body, body)) {
                return wrong();
            }
            Ok(())
        }
        Seen::Text(text) => {
            if let Some(frame) = expected.strip_prefix("headers ") {
                return frame_matches(frame, text).map_err(|why| format!("{why}; saw: {}", show(seen)));
            }
            if text_matches(expected, text) { Ok(()) } else { wrong() }
        }
    }
}

fn show(seen: &Seen) -> String {
    match seen {
        Seen::Text(text) => format!("text {}", text.escape_debug()),
        Seen::Http(status, body) => format!("http {status} {}", body.escape_debug()),
        Seen::Close(code) => format!("close {code}"),
        Seen::Nothing => "nothing".to_owned(),
    }
}

/// JSON as JSON, anything else as text, with the placeholders of the brief forms.
fn text_matches(expected: &str, text: &str) -> bool {
    match (serde_json::from_str::<Json>(expected), serde_json::from_str::<Json>(text)) {
        (Ok(expected), Ok(json)) => json_matches(&expected, &json),
        _ => pattern_matches(&unescape(expected), text),
    }
}

fn json_matches(expected: &Json, json: &Json) -> bool {
    match (expected, json) {
        (Json::String(any), _) if any == "<any>" => true,
        (Json::String(mark), Json::String(_)) if mark.starts_with("<keep ") => true,
        (Json::String(ms), Json::String(text)) if ms == "<ms>" => is_ms(text),
        (Json::String(ms), Json::Number(n)) if ms == "<ms>" => is_ms(&n.to_string()),
        (Json::String(pattern), Json::String(text)) if pattern.contains("<any>") => {
            pattern_matches(pattern, text)
        }
        (Json::Object(want), Json::Object(have)) => {
            want.len() == have.len()
                && want
                    .iter()
                    .all(|(name, value)| have.get(name).is_some_and(|other| json_matches(value, other)))
        }
        (Json::Array(want), Json::Array(have)) => {
            want.len() == have.len() && want.iter().zip(have).all(|(want, have)| json_matches(want, have))
        }
        (want, have) => want == have,
    }
}

/// Plausible epoch milliseconds: after 2001, before 2286.
fn is_ms(text: &str) -> bool {
    text.len() == 13 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Text in which `<any>` stands for any run of characters.
fn pattern_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split("<any>");
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// `COMMAND h1:v1 h2:v2 | body` against a STOMP frame.
fn frame_matches(expected: &str, text: &str) -> Result<(), String> {
    let (head, want_body) =
        expected.split_once(" | ").map_or((expected, None), |(head, body)| (head, Some(body)));
    let frame = text.strip_suffix('\0').ok_or("the frame does not end with NUL")?;
    let (have_head, body) = frame.split_once("\n\n").ok_or("the frame has no blank line")?;
    let mut have = have_head.split('\n');
    let mut words = head.split(' ');
    let command = words.next().unwrap_or_default();
    if have.next() != Some(command) {
        return Err(format!("the command is not {command}"));
    }
    let have: Vec<(&str, &str)> = have.filter_map(|line| line.split_once(':')).collect();
    let mut problems = String::new();
    for word in words.filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once(':').ok_or_else(|| format!("{word:?} is no header"))?;
        let found = have.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        if !found.is_some_and(|found| pattern_matches(&unescape(value), found)) {
            write!(problems, "header {name} is {found:?}; ").map_err(|error| error.to_string())?;
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    match want_body {
        Some(want) if !text_matches(want, body) => Err("the body differs".to_owned()),
        _ => Ok(()),
    }
}
