//! A running gateway: what it runs with, and how something else takes its place.
//!
//! A reload is a transaction. First everything that can fail: is the difference one that a running gateway can take,
//! can the new listeners be bound, can the certificate be read. Then, in this order, what cannot fail: the hub learns of
//! the new devices and says goodbye to the old ones, drivers begin, end and go on, connections are told, listeners open
//! and close. So nobody hears of a device that the hub does not know, and no driver speaks of one to nobody.

use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::control::{Applied, Order, Refusal};
use super::doors::{Doors, Prepared};
use super::found::Found;
use super::links::Links;
use crate::clock;
use crate::config::{Config, Difference};
use crate::dialects::{Context, Seal};
use crate::drivers::announce::{Announcement, Unwelcome};
use crate::hub::handle::HubHandle;
use crate::meters::Meters;
use crate::model::directory::Directory;
use crate::serve::admission::Admission;
use crate::serve::live::{Live, Publisher, live};
use crate::serve::{Shared, sockjs};
use crate::supervisor::Supervisor;

/// See the module.
#[derive(Debug)]
pub(super) struct Gateway {
    config: Config,
    /// The configured devices and those that were found.
    directory: Arc<Directory>,
    found: Found,
    hub: HubHandle,
    seal: Seal,
    sockjs: sockjs::Door,
    admission: Admission,
    meters: Arc<Meters>,
    started: Instant,
    links: Links,
    doors: Doors,
    publisher: Publisher,
    live: Live,
}

impl Gateway {
    /// Before any listener is open.
    #[expect(clippy::too_many_arguments, reason = "every part once")]
    pub(super) fn new(
        config: Config,
        directory: Arc<Directory>,
        hub: HubHandle,
        seal: Seal,
        sockjs: sockjs::Door,
        admission: Admission,
        links: Links,
        meters: Arc<Meters>,
    ) -> (Self, Live) {
        let started = clock::instant();
        let first = Shared {
            context: context(&config, &directory, &seal),
            hub: hub.clone(),
            admission: admission.clone(),
            sockjs: sockjs.clone(),
            meters: Arc::clone(&meters),
            started,
            recorders: links.recorders(),
            server: config.server.clone(),
            patience: Arc::default(),
        };
        let (publisher, live) = live(first);
        let (found, doors) = (Found::default(), Doors::default());
        let view = live.clone();
        let gateway = Self {
            config,
            directory,
            found,
            hub,
            seal,
            sockjs,
            admission,
            meters,
            started,
            links,
            doors,
            publisher,
            live,
        };
        (gateway, view)
    }

    /// Opens the listeners.
    pub(super) fn open(&mut self, doors: Prepared, supervisor: &mut Supervisor) {
        self.doors.commit(doors, &self.live, supervisor);
    }

    /// The gateway in one line.
    pub(super) fn status(&self) -> String {
        format!("serving {} devices on {} listeners", self.directory.devices().len(), self.doors.count())
    }

    pub(super) async fn obey(&mut self, order: Order, supervisor: &mut Supervisor) {
        match order {
            Order::Reload { config, reply } => {
                let result = self.reload(*config, supervisor).await;
                if reply.send(result).is_err() {
                    debug!("whoever wanted the reload is gone");
                }
            }
        }
    }

    async fn reload(&mut self, config: Config, supervisor: &mut Supervisor) -> Result<Applied, Refusal> {
        let config = config.reusing(&self.config);
        let difference = Difference::between(&self.config, &config);
        if !difference.restart.is_empty() {
            return Err(Refusal::Restart(difference.restart));
        }
        let doors = self.doors.prepare(&config.server, &config.dialects)?;

        for line in &difference.lines {
            info!("reload: {line}");
        }
        let (steps, ways) = self.links.prepare(Some(&self.config), &config);
        let configured = Directory::new(config.devices.clone(), config.links.clone());
        for device in self.found.settle(&configured, steps.stopped()) {
            warn!(device = %device.id, "a device that was found gives way to a configured one of the same name");
        }
        self.config = config;
        if let (Some(archive), Some(history)) = (self.hub.archive(), &self.config.history) {
            archive.limit(history);
        }
        clock::trust(self.config.gateway.clock);
        self.adopt(ways).await?;
        self.links.commit(steps, supervisor);
        let (limits, proxies) = (self.config.server.limits, &self.config.server.trusted_proxies);
        self.admission = self.admission.with(limits.connections, limits.connections_per_address, proxies);
        self.publish();
        self.doors.commit(doors, &self.live, supervisor);
        Ok(Applied { changes: difference.lines, status: self.status() })
    }

    /// Drivers have found devices, or lost some that they had found.
    pub(super) async fn hear(&mut self, announcements: Vec<Announcement>) {
        let configured = Directory::new(self.config.devices.clone(), self.config.links.clone());
        let mut replies = Vec::new();
        for Announcement { link, come, gone, over, reply } in announcements {
            if over.is_cancelled() {
                replies.push((reply, vec![Err(Unwelcome::NotNow); come.len()]));
                continue;
            }
            for id in gone {
                self.found.remove(&link, &id);
            }
            let results: Vec<_> = come
                .into_iter()
                .map(|device| {
                    let id = Arc::clone(&device.id);
                    let taken = self.found.insert(&link, device, &configured);
                    match &taken {
                        Ok(()) => debug!(device = %id, %link, "device found"),
                        Err(reason) => {
                            warn!(device = %id, %link, %reason, "a device that was found is left out");
                        }
                    }
                    taken
                })
                .collect();
            replies.push((reply, results));
        }
        let before = Arc::clone(&self.directory);
        if self.adopt(Vec::new()).await.is_err() {
            return;
        }
        if !Arc::ptr_eq(&before, &self.directory) {
            self.publish();
        }
        for (reply, results) in replies {
            if reply.send(results).is_err() {
                debug!("a driver ended before its devices were taken in");
            }
        }
    }

    /// Gives the hub the devices that there are now.
    async fn adopt(&mut self, ways: Vec<super::links::Way>) -> Result<(), Refusal> {
        let devices = self.config.devices.iter().chain(self.found.devices()).map(Arc::clone).collect();
        let directory = Arc::new(Directory::new(devices, self.config.links.clone()));
        if ways.is_empty() && directory.same(&self.directory) {
            return Ok(());
        }
        self.hub.adopt(Arc::clone(&directory), ways).await.map_err(|_| Refusal::Stopping)?;
        self.hub.know(&directory);
        self.directory = directory;
        Ok(())
    }

    /// Tells every connection what holds now.
    fn publish(&self) {
        self.publisher.publish(Shared {
            context: context(&self.config, &self.directory, &self.seal),
            hub: self.hub.clone(),
            admission: self.admission.clone(),
            sockjs: self.sockjs.clone(),
            meters: Arc::clone(&self.meters),
            started: self.started,
            recorders: self.links.recorders(),
            server: self.config.server.clone(),
            patience: Arc::default(),
        });
    }
}

/// What sessions may look at, made of what the gateway runs with.
fn context(config: &Config, directory: &Arc<Directory>, seal: &Seal) -> Arc<Context> {
    Arc::new(Context {
        gateway: config.gateway.clone(),
        directory: Arc::clone(directory),
        clients: Arc::clone(&config.clients),
        settings: config.dialects.clone(),
        seal: seal.clone(),
        frame_bytes: config.server.limits.frame_bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot, watch};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::config::{Source, resolve};
    use crate::drivers::OBSERVATION_QUEUE;
    use crate::drivers::announce::ANNOUNCEMENT_QUEUE;
    use crate::drivers::modbus::recorder::Recorders;
    use crate::hub;
    use crate::hub::handle::REQUEST_QUEUE;
    use crate::model::device::Device;
    use crate::model::interest::Selector;

    const CONFIGURATION: &str = r#"
        gateway = { id = "g" }
        modbus_tcp = [{ id = "plc", address = "127.0.0.1:1" }]
        product = [{ id = "p", property = [{ id = "a", type = "bool", modbus = { table = "coil", address = 1 } }] }]
        device = [{ id = "configured", product = "p", bus = "plc", unit = 1 }]
        client = [{ id = "c", secret = "long-enough-secret" }]
    "#;

    async fn heard(
        gateway: &mut Gateway,
        come: Vec<Arc<Device>>,
        gone: &[&str],
    ) -> Vec<Result<(), Unwelcome>> {
        said(gateway, come, gone, CancellationToken::new()).await
    }

    async fn said(
        gateway: &mut Gateway,
        come: Vec<Arc<Device>>,
        gone: &[&str],
        over: CancellationToken,
    ) -> Vec<Result<(), Unwelcome>> {
        let (reply, told) = oneshot::channel();
        let gone = gone.iter().map(|id| Arc::from(*id)).collect();
        gateway.hear(vec![Announcement { link: "plc".into(), come, gone, over, reply }]).await;
        told.await.unwrap()
    }

    /// Ids of the devices that the hub knows, and of those that sessions know.
    async fn known(gateway: &Gateway, live: &mut Live) -> (Vec<String>, Vec<String>) {
        let snapshot = gateway.hub.look(Selector::All, Duration::from_secs(20)).await.unwrap();
        let shared = live.now();
        let of_hub = snapshot.devices.iter().map(|state| state.device.id.to_string()).collect();
        let of_sessions =
            shared.context.directory.devices().iter().map(|device| device.id.to_string()).collect();
        (of_hub, of_sessions)
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test that runs the hub is its supervisor")]
    async fn what_a_driver_finds_is_known_to_hub_and_sessions_when_the_driver_is_answered() {
        let source = Source { name: "pentad.toml".into(), text: CONFIGURATION.to_owned() };
        let config = resolve(&[source]).unwrap_or_else(|problems| panic!("{problems}")).config;
        let configured = Arc::clone(&config.devices[0]);
        let found = |id: &str, uuid: &str| {
            let (id, uuid, mac) = (Arc::from(id), uuid.into(), format!("mac of {id}").into());
            Arc::new(Device { id, uuid, mac, ..Device::clone(&configured) })
        };
        let directory = Arc::new(Directory::new(config.devices.clone(), config.links.clone()));
        let (requests, request_queue) = mpsc::channel(REQUEST_QUEUE);
        let (observations, observation_queue) = mpsc::channel(OBSERVATION_QUEUE);
        let (announcements, _announced) = mpsc::channel(ANNOUNCEMENT_QUEUE);
        let meters = Arc::new(Meters::default());
        let (recorders, _faults) = Recorders::new();
        let links =
            Links::new(observations, announcements, watch::Sender::new(None), Arc::clone(&meters), recorders);
        let stop = CancellationToken::new();
        let hub = tokio::spawn(hub::task::run(
            Arc::clone(&directory),
            Vec::new(),
            request_queue,
            observation_queue,
            None,
            stop.clone(),
            meters.hub(),
        ));
        let (sockjs, _desk) = sockjs::desk();
        let seal = Seal { key: [7; 32], made: clock::instant() };
        let (admission, handle) = (Admission::new(9, 9, &[]), HubHandle::new(requests));
        let (mut gateway, mut live) =
            Gateway::new(config, directory, handle, seal, sockjs, admission, links, meters);

        let come = vec![found("found-1", "u1"), found("found-2", &configured.uuid)];
        let taken = Unwelcome::Taken { what: "uuid", of: "configured".into() };
        assert_eq!(heard(&mut gateway, come, &[]).await, [Ok(()), Err(taken)]);
        let both = vec!["configured".to_owned(), "found-1".to_owned()];
        assert_eq!(known(&gateway, &mut live).await, (both.clone(), both));

        assert_eq!(heard(&mut gateway, vec![found("found-3", "u3")], &["found-1"]).await, [Ok(())]);
        let both = vec!["configured".to_owned(), "found-3".to_owned()];
        let (mut of_hub, of_sessions) = known(&gateway, &mut live).await;
        of_hub.sort_unstable();
        assert_eq!((of_hub, of_sessions), (both.clone(), both.clone()));

        // A driver that a reload has stopped in the middle of this can add nothing, and take nothing away.
        let over = CancellationToken::new();
        over.cancel();
        let answer = said(&mut gateway, vec![found("found-4", "u4")], &["found-3"], over).await;
        assert_eq!(answer, [Err(Unwelcome::NotNow)]);
        assert_eq!(known(&gateway, &mut live).await.1, both);
        stop.cancel();
        hub.await.unwrap();
    }
}
