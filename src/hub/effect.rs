//! What the hub's state wants its owner to do.

use std::sync::Arc;

use super::groups::Offer;
use super::handle::{SessionKey, SessionReply};
use crate::drivers::DriverCommand;
use crate::model::message::DeviceMessage;
use crate::store::Write;

/// What the hub wants done.
#[derive(Debug)]
pub enum Effect {
    /// Give a device message to these sessions, in this order.
    Deliver {
        /// In ascending order, each once.
        sessions: Arc<[SessionKey]>,
        /// The message.
        message: Arc<DeviceMessage>,
    },
    /// Give a device message to the first of these sessions that has room. If that is not the first one, say so by
    /// [`super::state::HubState::served`] before the next `poll`, and if nobody has any, by [`super::state::HubState::unserved`].
    Balance {
        /// The group that shares the message.
        group: Arc<str>,
        /// Every holder of a matching relation, whose turn it is first.
        candidates: Vec<SessionKey>,
        /// The message.
        message: Arc<DeviceMessage>,
    },
    /// Tell one session something.
    Reply {
        /// Which one.
        session: SessionKey,
        /// What.
        reply: SessionReply,
    },
    /// Hand a command to a link. If it has no room, say so by [`super::state::HubState::refused`] before the next `poll`.
    Route {
        /// Id of the bus or broker.
        link: Arc<str>,
        /// The command.
        command: DriverCommand,
    },
    /// Keep this in the history store. Only given after [`super::state::HubState::remember`].
    Store(Write),
}

impl From<Offer> for Effect {
    fn from(offer: Offer) -> Self {
        let Offer { group, candidates, message } = offer;
        Self::Balance { group, candidates, message }
    }
}
