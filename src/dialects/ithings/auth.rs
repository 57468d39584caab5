//! Who asks: the token, and whether the project that the client works in holds anything for it.
//!
//! Every parameter may stand in a header or in the query, under several names; the first name that has a value
//! decides, and of its two places the header. Of all parameters only the token is required.

use std::sync::Arc;

use super::fault::Fault;
use crate::dialects::{Context, Request, Response, shared};
use crate::model::client::{Client, Dialect};
use crate::model::time::Now;

/// Names of the token, in the order in which they are looked for after `Authorization`.
const TOKEN: [&str; 2] = ["ithings-token", "token"];

/// Names of the project.
const PROJECT: [&str; 2] = ["ithings-project-id", "project-id"];

/// Projects up to this number are the real server's own ("none", "unclassified") and open to everybody.
const LAST_COMMON_PROJECT: u64 = 2;

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    fault: Fault,
}

impl Refusal {
    /// As the answer to the request.
    pub(super) fn response(&self) -> Response {
        Response::json(self.status, self.fault.to_json())
    }
}

/// The client, or why there is none.
pub(super) fn admit(request: &Request, context: &Context, now: Now) -> Result<Arc<Client>, Refusal> {
    let common = &context.settings.ithings.common;
    let token = token(request);
    let Some(client) = shared::authenticate(context, Dialect::Ithings, common, token, request.peer) else {
        let fault = if let Some(token) = token {
            request.logins.failed(request.peer, "ithings", token, now.instant);
            Fault::BAD_TOKEN
        } else {
            Fault::NOT_LOGGED_IN
        };
        return Err(Refusal { status: 401, fault: fault.fault() });
    };
    match parameter(request, &PROJECT) {
        // The real server answers this one case with status 200; a WebSocket client fails either way.
        Some(project) if !may_work_in(&client, project, context) => {
            Err(Refusal { status: 200, fault: Fault::NO_RIGHT.with("无所选项目的权限") })
        }
        Some(_) | None => Ok(client),
    }
}

fn token(request: &Request) -> Option<&str> {
    let authorization = request.header("authorization").or_else(|| request.query("Authorization"));
    let bearer = authorization.and_then(|value| {
        let (scheme, token) = value.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.filter(|token| !token.is_empty()).or_else(|| parameter(request, &TOKEN))
}

fn parameter<'a>(request: &'a Request, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        let values = [request.header(name), request.query(name)];
        values.into_iter().flatten().map(str::trim).find(|value| !value.is_empty())
    })
}

/// Whoever sees every device is what the real server calls an administrator, and may work in any project; so may
/// everybody in the common ones. Others need a device in it that they can see.
fn may_work_in(client: &Client, project: &str, context: &Context) -> bool {
    let Ok(number) = project.parse::<u64>() else { return true };
    let devices = context.directory.devices();
    number <= LAST_COMMON_PROJECT
        || devices.iter().all(|device| client.sees(device))
        || devices.iter().any(|device| *device.project == *project && client.sees(device))
}
