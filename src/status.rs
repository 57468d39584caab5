//! The line that the service manager shows of a running gateway: devices online, connections.
//!
//! Asks the hub like any client does, so it knows nothing of the hub's insides; outside of systemd nobody would see
//! the line, and the task is not started. A reload that was refused is told in it until another is not.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::hub::handle::{HubHandle, NoAnswer};
use crate::model::interest::Selector;
use crate::model::snapshot::Snapshot;
use crate::notify;
use crate::serve::admission::Admission;

/// How old the line may be. Who looks at it is a person.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps the line true until told to stop, with what there is to say beside the plant behind it.
pub async fn keep(
    hub: HubHandle,
    admission: Admission,
    notices: watch::Receiver<Option<String>>,
    stop: CancellationToken,
) {
    tokio::select! {
        // Cancel-safe: a cancelled token stays cancelled.
        () = stop.cancelled() => {}
        // Dropped only when told to stop; the hub notices by the session's queues.
        gone = tell(&hub, &admission, notices) => {
            if let Err(gone) = gone {
                debug!("no more status: {gone}");
            }
            stop.cancelled().await;
        }
    }
}

async fn tell(
    hub: &HubHandle,
    admission: &Admission,
    mut notices: watch::Receiver<Option<String>>,
) -> Result<(), NoAnswer> {
    loop {
        let seen = match hub.look(Selector::All, EVERY).await {
            Ok(snapshot) => Some(snapshot),
            // A hub that is stuck is for the watchdog; the line stays as it was.
            Err(NoAnswer::Late) => None,
            Err(gone @ NoAnswer::Gone) => return Err(gone),
        };
        let notice = notices.borrow_and_update().clone();
        // Said again even where nothing has changed: a reload puts a line of its own there.
        if let Some(snapshot) = seen {
            notify::status(&line(&snapshot, admission.count(), notice.as_deref()));
        }
        // Each end of a reload is a notice, so a line of the time before it does not stay. Cancel-safe: a notice that
        // was not taken stays one.
        if let Ok(Err(_)) = tokio::time::timeout(EVERY, notices.changed()).await {
            // Nobody is left who could reload.
            tokio::time::sleep(EVERY).await;
        }
    }
}

fn line(snapshot: &Snapshot, connections: usize, notice: Option<&str>) -> String {
    let online = snapshot.devices.iter().filter(|device| device.online).count();
    let links = snapshot.links.iter().filter(|link| link.up).count();
    let plant = format!(
        "{online} of {} devices online, {links} of {} links up, {connections} connections",
        snapshot.devices.len(),
        snapshot.links.len()
    );
    notice.map_or_else(|| plant.clone(), |notice| format!("{plant}; {notice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_what_is_there() {
        let plant = "0 of 0 devices online, 0 of 0 links up, 3 connections";
        assert_eq!(line(&Snapshot::default(), 3, None), plant);
        assert_eq!(line(&Snapshot::default(), 3, Some("reload refused")), format!("{plant}; reload refused"));
    }
}
