//! `POST .../authorize/login`: a name and a password for a token, as clients of the JetLinks server fetch theirs.
//!
//! ```text
//!   POST /api/authorize/login  {"username":"hmi","password":"..","expires":3600000,"remember":false,..}
//! < {"message":"success","result":{"expires":3600000,"token":"..","userId":"hmi"},"status":200,"timestamp":1795219200000}
//!   GET /api/messaging/{token}
//! ```
//!
//! The name is the id of a client, the password its secret, and the token too: nothing has to be kept for it, and it is
//! good for as long as the client stands in the configuration. It is escaped, because clients put it into a path as it is.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json, json};

use super::wire::to_text;
use crate::dialects::shared::json::member;
use crate::dialects::shared::{cors, form, lenient};
use crate::dialects::{Context, Request, Response};
use crate::model::client::{Dialect, Secret};
use crate::model::time::{Now, UnixMillis};

/// What stands behind `authorize` in the path.
pub(super) const LOGIN: &str = "login";

/// How long the token is said to be good, in milliseconds, where the client does not ask for a time: the real server's usual.
const EXPIRES: u64 = 3_600_000;

/// Longest time that is said, so that no client's arithmetic overflows: a year.
const LONGEST: u64 = 365 * 24 * EXPIRES;

/// What need not be escaped in a path (RFC 3986, unreserved).
const UNRESERVED: &percent_encoding::AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Answers the call.
pub(super) fn answer(request: &Request, context: &Context, now: Now) -> Response {
    let response = match request.method.as_str() {
        "OPTIONS" => cors::preflight(request, "POST, OPTIONS").with("access-control-max-age", "600"),
        "POST" => log_in(request, context, now),
        _ => fault(405, "method_not_allowed", "only POST", now.wall).with("allow", "POST, OPTIONS"),
    };
    response.with("access-control-allow-origin", "*").with("cache-control", "no-store")
}

fn log_in(request: &Request, context: &Context, now: Now) -> Response {
    let fields = read(&request.body);
    let given = |name| member(&fields, name).and_then(to_text);
    let (Some(name), Some(password)) = (given("username"), given("password")) else {
        return fault(400, "illegal_argument", "用户名或密码不能为空", now.wall);
    };
    let known = context.clients.by_id(Dialect::Sagoo, &name);
    // Compared with something also where nobody has the name, so that the time does not tell who has.
    let nobody = Secret::new("nobody's");
    let genuine = known.map_or(&nobody, |client| &client.secret).matches(&password);
    let Some(client) = known.filter(|_| genuine) else {
        request.logins.failed(request.peer, "sagoo", &format!("{name}\n{password}"), now.instant);
        return fault(400, "illegal_password", "用户名或密码错误", now.wall);
    };
    let asked = given("expires").and_then(|text| text.parse::<u64>().ok()).filter(|expires| *expires > 0);
    let body = json!({
        "message": "success",
        "result": {
            "expires": asked.unwrap_or(EXPIRES).min(LONGEST),
            "token": utf8_percent_encode(client.secret.reveal(), UNRESERVED).to_string(),
            "userId": &*client.id,
        },
        "status": 200,
        "timestamp": now.wall.0,
    });
    Response::json(200, body.to_string())
}

/// The fields of a body that is JSON or a form; what is neither has none.
fn read(body: &[u8]) -> Map<String, Json> {
    let text = String::from_utf8_lossy(body);
    match lenient::parse(&text) {
        Ok(Json::Object(fields)) => fields,
        Ok(_) | Err(_) => {
            form::pairs(&text).into_iter().map(|(name, value)| (name, Json::from(value))).collect()
        }
    }
}

fn fault(status: u16, code: &str, message: &str, at: UnixMillis) -> Response {
    let body = json!({"message": message, "status": status, "code": code, "timestamp": at.0});
    Response::json(status, body.to_string())
}
