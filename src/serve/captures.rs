//! `GET /captures/BUS.pcapng`: what the recorder of a bus holds, for Wireshark.
//!
//! Every byte of a bus tells something of every device on it. Loopback gets it without a credential; everybody else sends
//! the secret of a client that may read all devices of the bus, as `Authorization: Bearer`.

use std::net::IpAddr;

use http::{Method, Request as HttpRequest};

use super::{Shared, monitor};
use crate::clock;
use crate::dialects::Response;
use crate::model::client::Client;

/// The answer, if the request is for a capture.
pub(super) fn answer<B>(request: &HttpRequest<B>, peer: IpAddr, shared: &Shared) -> Option<Response> {
    let bus = request.uri().path().strip_prefix("/captures/")?.strip_suffix(".pcapng")?;
    if request.method() != Method::GET {
        return Some(Response::text(405, "only GET is answered here\n").with("allow", "GET"));
    }
    let devices = || shared.context.directory.devices().iter().filter(|device| *device.link == *bus);
    let may = |client: &Client| client.rights.read && devices().all(|device| client.sees(device));
    if !monitor::is_local(request.headers(), peer) {
        if let Err(refusal) = monitor::admit(request.headers(), peer, shared, may) {
            return Some(refusal);
        }
    }
    let Some(recorder) = shared.recorders.get(bus) else {
        return Some(Response::text(404, "there is no Modbus bus of this name\n"));
    };
    let body = recorder.pcapng(clock::now()).into();
    let response = Response { status: 200, headers: Vec::new(), body };
    Some(
        response
            .with("content-type", "application/x-pcapng")
            .with("content-disposition", "attachment")
            .with("cache-control", "no-store"),
    )
}
