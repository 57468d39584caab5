//! The listeners of a running gateway, and how another set of them takes the place of this one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Address, BuildError};
use crate::config::{self, Server};
use crate::dialects::{ENTRIES, Entry, Settings};
use crate::serve::listener::{BindError, Face, FaceKeeper, Listener, Neighbour};
use crate::serve::live::Live;
use crate::serve::tls::Tls;
use crate::supervisor::{Stage, Supervisor};

/// What is open.
#[derive(Debug, Default)]
pub(super) struct Doors {
    open: Vec<Door>,
}

#[derive(Debug)]
struct Door {
    /// As configured; port 0 is any free one.
    wanted: SocketAddr,
    real: Address,
    face: FaceKeeper,
    neighbour: Neighbour,
    stop: CancellationToken,
}

/// Another set of listeners, bound where they are new. Dropping it closes what was bound and changes nothing.
#[derive(Debug)]
pub(super) struct Prepared {
    doors: Vec<Wanted>,
}

#[derive(Debug)]
struct Wanted {
    address: SocketAddr,
    face: Face,
    opening: Opening,
}

#[derive(Debug)]
enum Opening {
    /// It is among the open ones, at this place.
    Kept(usize, Address),
    New(Listener),
}

impl Doors {
    /// Binds what is not open yet, and loads the certificate. Must be called inside the runtime.
    pub(super) fn prepare(&self, server: &Server, settings: &Settings) -> Result<Prepared, BuildError> {
        let mut doors = Vec::new();
        let mut taken = vec![false; self.open.len()];
        let faces = faces(server, settings)?;
        let wanted: Vec<SocketAddr> = faces.iter().map(|(address, _)| *address).collect();
        for (address, face) in faces {
            let kept = self.open.iter().zip(&mut taken).position(|(door, taken)| {
                let same = door.wanted == address && !*taken;
                *taken |= same;
                same
            });
            let opening = match kept.and_then(|at| Some((at, self.open.get(at)?))) {
                Some((at, door)) => Opening::Kept(at, Address { secure: face.secure(), ..door.real }),
                None => Opening::New(self.bind(address, &face, &wanted).map_err(BuildError::Bind)?),
            };
            doors.push(Wanted { address, face, opening });
        }
        Ok(Prepared { doors })
    }

    /// Binds an address; where it is in the way, beside a listener that goes.
    fn bind(&self, address: SocketAddr, face: &Face, wanted: &[SocketAddr]) -> Result<Listener, BindError> {
        let goes = |door: &&Door| door.wanted.port() == address.port() && !wanted.contains(&door.wanted);
        let going: Vec<&Neighbour> = self.open.iter().filter(goes).map(|door| &door.neighbour).collect();
        match Listener::bind_with(address, face.clone()) {
            Err(error) if error.source.kind() == ErrorKind::AddrInUse && !going.is_empty() => {
                Listener::bind_beside(address, face.clone(), &going)
            }
            bound => bound,
        }
    }

    /// Opens what is new, closes what is no longer wanted, and lets the others serve what they are to serve now.
    pub(super) fn commit(&mut self, prepared: Prepared, live: &Live, supervisor: &mut Supervisor) {
        let mut old: Vec<Option<Door>> = std::mem::take(&mut self.open).into_iter().map(Some).collect();
        for Wanted { address, face, opening } in prepared.doors {
            match opening {
                Opening::Kept(at, real) => {
                    if let Some(door) = old.get_mut(at).and_then(Option::take) {
                        door.face.replace(face);
                        self.open.push(Door { real, ..door });
                    }
                }
                Opening::New(listener) => {
                    let real = Address { address: listener.address(), secure: listener.secure() };
                    info!(address = %real.address, tls = real.secure, "listening");
                    let stop = supervisor.token(Stage::Serve).child_token();
                    let (face, neighbour) = (listener.face(), listener.neighbour());
                    let task = listener.run(live.clone(), stop.clone());
                    supervisor.spawn_with(
                        Stage::Serve,
                        format!("listener {}", real.address),
                        stop.clone(),
                        task,
                    );
                    self.open.push(Door { wanted: address, real, face, neighbour, stop });
                }
            }
        }
        for door in old.into_iter().flatten() {
            info!(address = %door.real.address, "no longer listening");
            door.stop.cancel();
        }
    }

    pub(super) fn count(&self) -> usize {
        self.open.len()
    }
}

impl Prepared {
    /// Where clients will be able to connect, in configuration order.
    pub(super) fn addresses(&self) -> Vec<Address> {
        let address = |wanted: &Wanted| match &wanted.opening {
            Opening::Kept(_, real) => *real,
            Opening::New(listener) => Address { address: listener.address(), secure: listener.secure() },
        };
        self.doors.iter().map(address).collect()
    }
}

/// Every listener as configured. Those of the server serve every dialect that has none of its own.
fn faces(server: &Server, settings: &Settings) -> Result<Vec<(SocketAddr, Face)>, BuildError> {
    let enabled = || ENTRIES.into_iter().filter(|entry| (entry.common)(settings).enabled);
    let general: Arc<[Entry]> = enabled().filter(|entry| !(entry.common)(settings).is_apart()).collect();
    let mut own: BTreeMap<(SocketAddr, bool), Vec<Entry>> = BTreeMap::new();
    for entry in enabled() {
        let common = (entry.common)(settings);
        let plain = common.listen.iter().map(|address| (*address, false));
        for door in plain.chain(common.tls_listen.iter().map(|address| (*address, true))) {
            own.entry(door).or_default().push(entry);
        }
    }
    let mut faces: Vec<(SocketAddr, Face)> =
        server.listen.iter().map(|address| (*address, Face::new(Arc::clone(&general), None))).collect();
    let load = |tls: &config::Tls| Tls::load(&tls.certificate, &tls.key, tls.clients.as_ref());
    let tls = server.tls.as_ref().map(load).transpose().map_err(BuildError::Tls)?;
    for address in server.tls.iter().flat_map(|tls| &tls.listen) {
        faces.push((*address, Face::new(Arc::clone(&general), tls.clone())));
    }
    // The configuration has no secure listener without a certificate.
    faces.extend(own.into_iter().map(|((address, secure), entries)| {
        (address, Face::new(entries.into(), tls.clone().filter(|_| secure)))
    }));
    Ok(faces)
}
