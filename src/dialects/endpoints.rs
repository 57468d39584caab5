//! Which STOMP applications stand behind which path.
//!
//! The one place beside the settings that knows more than one dialect: two of them can share a path, and neither
//! may know the other.

use std::sync::Arc;

use super::shared::stomp::{self, App};
use super::{Context, Opening, Request, janus, oam};
use crate::model::time::Now;

/// `/websocket`: Janus alone.
pub fn websocket(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    stomp::open(request, context, now, || vec![janus::app(context)])
}

/// `/ws`: WCS OAM, and Janus too where both are served on the same listeners. A Janus client comes here when it
/// takes the address that the vendor's manual gives for `SockJS`.
pub fn ws(request: &Request, context: &Arc<Context>, now: Now) -> Opening {
    stomp::open(request, context, now, || {
        let mut apps: Vec<Box<dyn App>> = vec![oam::app(context)];
        let (janus, oam) = (&context.settings.janus.common, &context.settings.oam.common);
        if janus.enabled && janus.listen == oam.listen {
            apps.push(janus::app(context));
        }
        apps
    })
}
