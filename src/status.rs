//! The line that the service manager shows of a running gateway: devices online, connections.
//!
//! Asks the hub like any client does, so it knows nothing of the hub's insides; outside of systemd nobody would see
//! the line, and the task is not started. A reload that was refused is told in it until another is not.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::dialects::Token;
use crate::hub::handle::{Attachment, HubGone, HubHandle, HubRequest, SessionReply};
use crate::model::client::{Client, DeviceFilter, Rights, Secret};
use crate::model::interest::Selector;
use crate::model::snapshot::{Answer, Question, Snapshot};
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
) -> Result<(), HubGone> {
    // It watches nothing, so no device message ever comes.
    let mut seat = hub.attach(1).await?;
    let client = Arc::new(Client {
        id: "status".into(),
        secret: Secret::new(""),
        dialects: Vec::new(),
        devices: DeviceFilter::new(["*"]),
        rights: Rights::READ,
    });
    loop {
        let question = Question::Snapshot(Selector::All);
        let client = Arc::clone(&client);
        hub.send(HubRequest::Ask { key: seat.key, token: Token(0), client, question }).await?;
        let snapshot = answer(&mut seat).await?;
        let notice = notices.borrow_and_update().clone();
        // Said again even where nothing has changed: a reload puts a line of its own there.
        notify::status(&line(&snapshot, admission.count(), notice.as_deref()));
        // Each end of a reload is a notice, so a line of the time before it does not stay. Cancel-safe: a notice that
        // was not taken stays one.
        if let Ok(Err(_)) = tokio::time::timeout(EVERY, notices.changed()).await {
            // Nobody is left who could reload.
            tokio::time::sleep(EVERY).await;
        }
    }
}

async fn answer(seat: &mut Attachment) -> Result<Arc<Snapshot>, HubGone> {
    loop {
        if let SessionReply::Answer(_, Answer::Snapshot(snapshot)) =
            seat.replies.recv().await.ok_or(HubGone)?.reply
        {
            return Ok(snapshot);
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
