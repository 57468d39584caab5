//! What a page of another origin may do: the part of a preflight's answer that is the same in every dialect.

use bytes::Bytes;

use crate::dialects::{Request, Response};

/// Headers that are allowed where a preflight asks for none by name.
const USUAL: &str = "authorization, content-type, token, x-requested-with";

/// The answer to a preflight: these methods, and every header that the page asks for. Which headers a page sends decides
/// nothing here, and frameworks add their own. Whose page it may be, and for how long the answer holds, the dialect adds.
pub fn preflight(request: &Request, methods: &str) -> Response {
    let asked = request.header("access-control-request-headers").map(str::trim);
    Response { status: 204, headers: Vec::new(), body: Bytes::new() }
        .with("access-control-allow-methods", methods)
        .with("access-control-allow-headers", asked.filter(|names| !names.is_empty()).unwrap_or(USUAL))
}
