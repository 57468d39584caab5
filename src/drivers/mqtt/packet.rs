//! What client and broker say to each other, alike for MQTT 3.1.1 and 5, and how it becomes bytes.
//!
//! The bytes are rumqttc's codecs' business; this module translates, and turns reason codes into words. It holds no
//! state and does no IO. Sources of the facts: the OASIS standards of MQTT 3.1.1 and 5.0, chapters 2 and 3.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::{self as old_bytes, v4};
use rumqttc::v5::mqttbytes::{self as new_bytes, v5};

use crate::model::client::Secret;

/// Largest packets in and out. A bridge such as Zigbee2MQTT sends some hundred KiB in passing, and a retained message
/// that is refused would end the connection at every connect.
pub const LARGEST_PACKET: u32 = 1 << 20;

/// Messages that the broker may have unacknowledged on their way to us (MQTT 5 alone can say so). More than this wait
/// at the broker.
const RECEIVE_MAXIMUM: u16 = 100;

/// How long a broker keeps the session of a client that wants it kept, in seconds (MQTT 5; with 3.1.1 the broker
/// decides).
const SESSION_EXPIRY: u32 = 3600;

/// Which MQTT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1, which every broker speaks.
    #[default]
    V3,
    /// 5.
    V5,
}

/// A message in either direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Where.
    pub topic: Arc<str>,
    /// What.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Out: the broker shall keep it. In: the broker had kept it, so that its age is unknown.
    pub retain: bool,
    /// What only MQTT 5 carries.
    pub extra: Extra,
}

/// What only MQTT 5 carries beside a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// Where the answer is wanted.
    pub response_topic: Option<Arc<str>>,
    /// What the answer shall carry, to be known by.
    pub correlation: Option<Bytes>,
    /// Names and values of the sender's own.
    pub user: Vec<(Arc<str>, Arc<str>)>,
}

impl Extra {
    fn is_empty(&self) -> bool {
        self.response_topic.is_none() && self.correlation.is_none() && self.user.is_empty()
    }
}

/// How a connection begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Stable.
    pub client_id: Arc<str>,
    /// Seconds.
    pub keep_alive: u16,
    /// Whether the broker shall forget what it knows of this client.
    pub clean: bool,
    /// User name and password.
    pub login: Option<(Arc<str>, Secret)>,
    /// What the broker publishes when the connection breaks.
    pub will: Option<Message>,
}

/// What the client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outbound {
    /// First of all.
    Connect(Box<Hello>),
    /// A message; its number is 0 with QoS 0.
    Publish(u16, Box<Message>),
    /// A QoS 1 message has arrived.
    Acknowledge(u16),
    /// A QoS 2 message has arrived.
    Received(u16),
    /// Our QoS 2 message may be passed on.
    Release(u16),
    /// The end of a QoS 2 message from the broker.
    Complete(u16),
    /// Filters with the highest QoS that is wanted.
    Subscribe(u16, Vec<(Arc<str>, u8)>),
    /// Filters that are wanted no more; at least one.
    Unsubscribe(u16, Vec<Arc<str>>),
    /// Are you there?
    Ping,
    /// The end; the broker shall not publish the will.
    Disconnect,
}

/// What the broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// It takes the client.
    Welcome(Welcome),
    /// It does not, for this reason.
    Refused(String),
    /// A message; its number is 0 with QoS 0.
    Publish(u16, Message),
    /// It has our QoS 1 message, or refuses it for a reason.
    Acknowledged(u16, Result<(), String>),
    /// It has our QoS 2 message, or refuses it.
    Received(u16, Result<(), String>),
    /// The QoS 2 message may be passed on.
    Released(u16),
    /// The end of our QoS 2 message.
    Completed(u16),
    /// What became of each filter.
    Subscribed(u16, Vec<Result<(), String>>),
    /// Filters are forgotten.
    Unsubscribed(u16),
    /// The answer to a ping.
    Pong,
    /// It ends the connection, for this reason.
    Goodbye(String),
    /// Something that a client has no use for.
    Other,
}

/// What a broker says when it takes a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// Whether it still knows the client.
    pub session_present: bool,
    /// The keep-alive that it insists on, in seconds.
    pub keep_alive: Option<u16>,
    /// Messages that it takes before it has acknowledged the first.
    pub in_flight: Option<u16>,
    /// Largest packet that it takes, in bytes.
    pub largest: Option<u32>,
}

/// Bytes that are no packet, or a packet that is no bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// From the broker.
    #[error("it sent a packet that cannot be read ({0})")]
    Read(String),
    /// For the broker.
    #[error("a packet cannot be sent ({0})")]
    Write(String),
}

/// Appends a packet's bytes. The connect packet must be the first in an empty buffer.
pub fn encode(
    version: Version,
    packet: Outbound,
    largest: u32,
    into: &mut BytesMut,
) -> Result<(), CodecError> {
    let written = match version {
        Version::V3 => old_packet(packet)
            .write(into, usize::try_from(largest).unwrap_or(usize::MAX))
            .map_err(|error| error.to_string()),
        Version::V5 => new_packet(packet).write(into, Some(largest)).map_err(|error| error.to_string()),
    };
    written.map(drop).map_err(CodecError::Write)
}

/// Whether a message is no larger on the wire than a broker takes.
pub fn fits(version: Version, message: &Message, largest: u32) -> bool {
    let size = match version {
        Version::V3 => old_packet(Outbound::Publish(1, Box::new(message.clone()))).size(),
        Version::V5 => new_packet(Outbound::Publish(1, Box::new(message.clone()))).size(),
    };
    u32::try_from(size).is_ok_and(|size| size <= largest)
}

/// Takes the next packet out of the bytes that have arrived, if it is whole.
pub fn decode(version: Version, from: &mut BytesMut) -> Result<Option<Inbound>, CodecError> {
    match version {
        Version::V3 => {
            let largest = usize::try_from(LARGEST_PACKET).unwrap_or(usize::MAX);
            match v4::Packet::read(from, largest) {
                Ok(packet) => Ok(Some(of_old(packet))),
                Err(old_bytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(CodecError::Read(error.to_string())),
            }
        }
        Version::V5 => match v5::Packet::read(from, Some(LARGEST_PACKET)) {
            Ok(packet) => Ok(Some(of_new(packet))),
            Err(new_bytes::Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(CodecError::Read(error.to_string())),
        },
    }
}

fn old_qos(qos: u8) -> old_bytes::QoS {
    match qos {
        0 => old_bytes::QoS::AtMostOnce,
        1 => old_bytes::QoS::AtLeastOnce,
        _ => old_bytes::QoS::ExactlyOnce,
    }
}

fn new_qos(qos: u8) -> new_bytes::QoS {
    match qos {
        0 => new_bytes::QoS::AtMostOnce,
        1 => new_bytes::QoS::AtLeastOnce,
        _ => new_bytes::QoS::ExactlyOnce,
    }
}

fn old_packet(packet: Outbound) -> v4::Packet {
    match packet {
        Outbound::Connect(hello) => {
            let Hello { client_id, keep_alive, clean, login, will } = *hello;
            let mut connect = v4::Connect::new(client_id.as_ref());
            connect.keep_alive = keep_alive;
            connect.clean_session = clean;
            connect.login = login.map(|(name, secret)| v4::Login::new(name.as_ref(), secret.reveal()));
            connect.last_will = will.map(|will| {
                v4::LastWill::new(will.topic.as_ref(), will.payload, old_qos(will.qos), will.retain)
            });
            v4::Packet::Connect(connect)
        }
        Outbound::Publish(number, message) => {
            let mut publish = v4::Publish::from_bytes(
                message.topic.as_ref(),
                old_qos(message.qos),
                message.payload.clone(),
            );
            publish.pkid = number;
            publish.retain = message.retain;
            v4::Packet::Publish(publish)
        }
        Outbound::Acknowledge(number) => v4::Packet::PubAck(v4::PubAck::new(number)),
        Outbound::Received(number) => v4::Packet::PubRec(v4::PubRec::new(number)),
        Outbound::Release(number) => v4::Packet::PubRel(v4::PubRel::new(number)),
        Outbound::Complete(number) => v4::Packet::PubComp(v4::PubComp::new(number)),
        Outbound::Subscribe(number, filters) => {
            let filter = |(filter, qos): &(Arc<str>, u8)| {
                v4::SubscribeFilter::new(filter.as_ref().to_owned(), old_qos(*qos))
            };
            let mut subscribe = v4::Subscribe::new_many(filters.iter().map(filter));
            subscribe.pkid = number;
            v4::Packet::Subscribe(subscribe)
        }
        Outbound::Unsubscribe(number, filters) => {
            let topics = filters.iter().map(|filter| filter.as_ref().to_owned()).collect();
            v4::Packet::Unsubscribe(v4::Unsubscribe { pkid: number, topics })
        }
        Outbound::Ping => v4::Packet::PingReq,
        Outbound::Disconnect => v4::Packet::Disconnect,
    }
}

fn new_packet(packet: Outbound) -> v5::Packet {
    match packet {
        Outbound::Connect(hello) => {
            let Hello { client_id, keep_alive, clean, login, will } = *hello;
            let properties = v5::ConnectProperties {
                session_expiry_interval: (!clean).then_some(SESSION_EXPIRY),
                receive_maximum: Some(RECEIVE_MAXIMUM),
                max_packet_size: Some(LARGEST_PACKET),
                ..v5::ConnectProperties::new()
            };
            let connect = v5::Connect {
                keep_alive,
                client_id: client_id.as_ref().to_owned(),
                clean_start: clean,
                properties: Some(properties),
            };
            let login = login.map(|(name, secret)| v5::Login::new(name.as_ref(), secret.reveal()));
            let will = will.map(|will| {
                v5::LastWill::new(will.topic.as_ref(), will.payload, new_qos(will.qos), will.retain, None)
            });
            v5::Packet::Connect(connect, will, login)
        }
        Outbound::Publish(number, message) => {
            let properties = (!message.extra.is_empty()).then(|| properties(&message.extra));
            let mut publish = v5::Publish::new(
                message.topic.as_ref(),
                new_qos(message.qos),
                message.payload.clone(),
                properties,
            );
            publish.pkid = number;
            publish.retain = message.retain;
            v5::Packet::Publish(publish)
        }
        Outbound::Acknowledge(number) => v5::Packet::PubAck(v5::PubAck::new(number, None)),
        Outbound::Received(number) => v5::Packet::PubRec(v5::PubRec::new(number, None)),
        Outbound::Release(number) => v5::Packet::PubRel(v5::PubRel::new(number, None)),
        Outbound::Complete(number) => v5::Packet::PubComp(v5::PubComp::new(number, None)),
        Outbound::Subscribe(number, filters) => {
            let filter = |(filter, qos): &(Arc<str>, u8)| v5::Filter::new(filter.as_ref(), new_qos(*qos));
            let mut subscribe = v5::Subscribe::new_many(filters.iter().map(filter), None);
            subscribe.pkid = number;
            v5::Packet::Subscribe(subscribe)
        }
        Outbound::Unsubscribe(number, filters) => {
            let filters = filters.iter().map(|filter| filter.as_ref().to_owned()).collect();
            v5::Packet::Unsubscribe(v5::Unsubscribe { pkid: number, filters, properties: None })
        }
        Outbound::Ping => v5::Packet::PingReq(v5::PingReq),
        Outbound::Disconnect => {
            v5::Packet::Disconnect(v5::Disconnect::new(v5::DisconnectReasonCode::NormalDisconnection))
        }
    }
}

fn properties(extra: &Extra) -> v5::PublishProperties {
    let pair = |(name, value): &(Arc<str>, Arc<str>)| (name.as_ref().to_owned(), value.as_ref().to_owned());
    v5::PublishProperties {
        response_topic: extra.response_topic.as_ref().map(|topic| topic.as_ref().to_owned()),
        correlation_data: extra.correlation.clone(),
        user_properties: extra.user.iter().map(pair).collect(),
        ..v5::PublishProperties::default()
    }
}

fn of_old(packet: v4::Packet) -> Inbound {
    match packet {
        v4::Packet::ConnAck(ack) => match ack.code {
            v4::ConnectReturnCode::Success => {
                Inbound::Welcome(Welcome { session_present: ack.session_present, ..Welcome::default() })
            }
            v4::ConnectReturnCode::RefusedProtocolVersion => Inbound::Refused("it refuses MQTT 3.1.1".into()),
            v4::ConnectReturnCode::BadClientId => Inbound::Refused("it refuses the client id".into()),
            v4::ConnectReturnCode::ServiceUnavailable => Inbound::Refused("it is not ready".into()),
            v4::ConnectReturnCode::BadUserNamePassword => Inbound::Refused(BAD_LOGIN.into()),
            v4::ConnectReturnCode::NotAuthorized => Inbound::Refused(NOT_LET_IN.into()),
        },
        v4::Packet::Publish(publish) => Inbound::Publish(
            publish.pkid,
            Message {
                topic: publish.topic.into(),
                payload: publish.payload,
                qos: old_level(publish.qos),
                retain: publish.retain,
                extra: Extra::default(),
            },
        ),
        v4::Packet::PubAck(ack) => Inbound::Acknowledged(ack.pkid, Ok(())),
        v4::Packet::PubRec(ack) => Inbound::Received(ack.pkid, Ok(())),
        v4::Packet::PubRel(ack) => Inbound::Released(ack.pkid),
        v4::Packet::PubComp(ack) => Inbound::Completed(ack.pkid),
        v4::Packet::SubAck(ack) => {
            let answer = |code: &v4::SubscribeReasonCode| match code {
                v4::SubscribeReasonCode::Success(_) => Ok(()),
                v4::SubscribeReasonCode::Failure => Err("no reason is given".to_owned()),
            };
            Inbound::Subscribed(ack.pkid, ack.return_codes.iter().map(answer).collect())
        }
        v4::Packet::UnsubAck(ack) => Inbound::Unsubscribed(ack.pkid),
        v4::Packet::PingResp => Inbound::Pong,
        v4::Packet::Disconnect => Inbound::Goodbye("it says goodbye".into()),
        v4::Packet::Connect(_)
        | v4::Packet::Subscribe(_)
        | v4::Packet::Unsubscribe(_)
        | v4::Packet::PingReq => Inbound::Other,
    }
}

const BAD_LOGIN: &str = "it refuses user name and password";
const NOT_LET_IN: &str = "it does not let this client in; check user name and password";

#[expect(clippy::wildcard_enum_match_arm, reason = "all others are told by their own name")]
fn of_new(packet: v5::Packet) -> Inbound {
    match packet {
        v5::Packet::ConnAck(ack) => welcome(ack),
        v5::Packet::Publish(publish) => {
            // The codec leaves the topic as bytes. One that is no text cannot be one of ours.
            let topic = String::from_utf8_lossy(&publish.topic).as_ref().into();
            let extra = publish.properties.map_or_else(Extra::default, |properties| Extra {
                response_topic: properties.response_topic.map(Arc::from),
                correlation: properties.correlation_data,
                user: properties
                    .user_properties
                    .into_iter()
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
            });
            let (qos, retain) = (new_level(publish.qos), publish.retain);
            Inbound::Publish(publish.pkid, Message { topic, payload: publish.payload, qos, retain, extra })
        }
        v5::Packet::PubAck(ack) => Inbound::Acknowledged(
            ack.pkid,
            match ack.reason {
                v5::PubAckReason::Success | v5::PubAckReason::NoMatchingSubscribers => Ok(()),
                reason => Err(words(&reason)),
            },
        ),
        v5::Packet::PubRec(ack) => Inbound::Received(
            ack.pkid,
            match ack.reason {
                v5::PubRecReason::Success | v5::PubRecReason::NoMatchingSubscribers => Ok(()),
                reason => Err(words(&reason)),
            },
        ),
        v5::Packet::PubRel(ack) => Inbound::Released(ack.pkid),
        v5::Packet::PubComp(ack) => Inbound::Completed(ack.pkid),
        v5::Packet::SubAck(ack) => {
            let answer = |code: &v5::SubscribeReasonCode| match code {
                v5::SubscribeReasonCode::Success(_) => Ok(()),
                reason => Err(words(reason)),
            };
            Inbound::Subscribed(ack.pkid, ack.return_codes.iter().map(answer).collect())
        }
        v5::Packet::UnsubAck(ack) => Inbound::Unsubscribed(ack.pkid),
        v5::Packet::PingResp(_) => Inbound::Pong,
        v5::Packet::Disconnect(goodbye) => {
            let reason = goodbye.properties.and_then(|properties| properties.reason_string);
            Inbound::Goodbye(format!(
                "it ends the connection: {}",
                reason.unwrap_or_else(|| words(&goodbye.reason_code))
            ))
        }
        v5::Packet::Auth(_)
        | v5::Packet::Connect(..)
        | v5::Packet::Subscribe(_)
        | v5::Packet::Unsubscribe(_)
        | v5::Packet::PingReq(_) => Inbound::Other,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all others are told by their own name")]
fn welcome(ack: v5::ConnAck) -> Inbound {
    match ack.code {
        v5::ConnectReturnCode::Success => {
            let told = ack.properties.as_ref();
            Inbound::Welcome(Welcome {
                session_present: ack.session_present,
                keep_alive: told.and_then(|told| told.server_keep_alive),
                in_flight: told.and_then(|told| told.receive_max),
                largest: told.and_then(|told| told.max_packet_size),
            })
        }
        v5::ConnectReturnCode::BadUserNamePassword => Inbound::Refused(BAD_LOGIN.into()),
        v5::ConnectReturnCode::NotAuthorized => Inbound::Refused(NOT_LET_IN.into()),
        v5::ConnectReturnCode::UnsupportedProtocolVersion | v5::ConnectReturnCode::RefusedProtocolVersion => {
            Inbound::Refused("it does not speak MQTT 5; try version = \"3.1.1\"".into())
        }
        v5::ConnectReturnCode::ClientIdentifierNotValid | v5::ConnectReturnCode::BadClientId => {
            Inbound::Refused("it refuses the client id".into())
        }
        code => {
            let reason = ack.properties.and_then(|told| told.reason_string);
            Inbound::Refused(format!("it refuses the connection: {}", reason.unwrap_or_else(|| words(&code))))
        }
    }
}

fn old_level(qos: old_bytes::QoS) -> u8 {
    match qos {
        old_bytes::QoS::AtMostOnce => 0,
        old_bytes::QoS::AtLeastOnce => 1,
        old_bytes::QoS::ExactlyOnce => 2,
    }
}

fn new_level(qos: new_bytes::QoS) -> u8 {
    match qos {
        new_bytes::QoS::AtMostOnce => 0,
        new_bytes::QoS::AtLeastOnce => 1,
        new_bytes::QoS::ExactlyOnce => 2,
    }
}

/// The name of a reason code as words: `NotAuthorized` becomes "not authorized".
fn words(reason: &impl Debug) -> String {
    let mut words = String::new();
    for c in format!("{reason:?}").chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
