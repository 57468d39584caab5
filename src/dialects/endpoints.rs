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
    let same = janus.listen == oam.listen && janus.tls_listen == oam.tls_listen;
    janus.enabled && oam.enabled && same
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::shared::fixture;

    /// Who takes the request for the base of SockJS: Janus, WCS OAM.
    fn takers(set: impl FnOnce(&mut crate::dialects::Settings)) -> [bool; 2] {
        let mut context = Arc::into_inner(fixture::context()).expect("nobody else has it");
        set(&mut context.settings);
        let (context, request) = (Arc::new(context), fixture::request("GET", "/ws/info", false));
        [janus::open, oam::open].map(|open| {
            let opening = open(&request, &context, fixture::now());
            !matches!(opening, Opening::NotMine)
        })
    }

    #[test]
    fn ws_is_shared_only_by_dialects_with_the_same_listeners() {
        let own = || vec!["127.0.0.1:9443".parse().unwrap()];
        assert_eq!(takers(|_| {}), [false, true]);
        assert_eq!(takers(|settings| settings.oam.common.listen = own()), [true, true]);
        assert_eq!(takers(|settings| settings.oam.common.tls_listen = own()), [true, true]);
        assert_eq!(takers(|settings| settings.janus.common.tls_listen = own()), [true, true]);
        let both = |settings: &mut crate::dialects::Settings| {
            (settings.janus.common.tls_listen, settings.oam.common.tls_listen) = (own(), own());
        };
        assert_eq!(takers(both), [false, true]);
    }
}
