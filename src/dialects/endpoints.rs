//! Which STOMP applications stand behind which path.
//!
//! The one place beside the settings that knows more than one dialect: two of them can share a path, and neither
//! may know the other.

use std::sync::Arc;

use super::shared::sockjs::{self, Base};
use super::shared::stomp::{self, App};
use super::{Context, Opening, Request, Session, Upgrade, janus, oam};
use crate::model::client::Dialect;
use crate::model::time::Now;

/// `/websocket`: Janus alone.
pub fn websocket(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    let tolerance = context.settings.janus.stomp;
    stomp::open(request, context, tolerance, now, || vec![janus::app(context)])
}

/// Whether one listener serves both dialects, so that they share `/ws`. It is opened as WCS OAM then, whose setting
/// says which pages may come and what is put up with.
pub fn share_ws(context: &Context) -> bool {
    let (janus, oam) = (&context.settings.janus.common, &context.settings.oam.common);
    janus.enabled && oam.enabled && janus.listen == oam.listen
}

/// `/ws` and below: raw STOMP, and SockJS. A Janus client comes here when it takes the address that the vendor's
/// manual gives for SockJS; a client of WCS OAM comes either way.
pub fn ws(
    request: &Request,
    context: &Arc<Context>,
    now: Now,
    dialect: Dialect,
    admits_origin: bool,
) -> Opening {
    let Some(path) = request.path.strip_prefix("/ws") else { return Opening::NotMine };
    let apps = || -> Vec<Box<dyn App>> {
        if share_ws(context) {
            vec![oam::app(context), janus::app(context)]
        } else if dialect == Dialect::Janus {
            vec![janus::app(context)]
        } else {
            vec![oam::app(context)]
        }
    };
    let settings = &context.settings;
    let tolerance = if dialect == Dialect::Janus { settings.janus.stomp } else { settings.oam.stomp };
    let session = || -> Box<dyn Session> { stomp::session(request, context, tolerance, now, apps()) };
    let raw = || Upgrade { session: session(), subprotocol: stomp::subprotocol(request) };
    sockjs::open(request, path, context, now, &Base { session: &session, raw: &raw, admits_origin })
}
