//! Tests of the packets and their bytes.

use proptest::prelude::*;

use super::*;

/// What the broker would say, as bytes of the library's own writer.
fn bytes(packet: &v5::Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, None).unwrap();
    bytes
}

#[test]
fn a_packet_that_arrives_in_pieces_is_read_when_it_is_whole() {
    let message = Message {
        topic: "a/b".into(),
        payload: Bytes::from_static(b"hello"),
        qos: 1,
        retain: true,
        extra: Extra::default(),
    };
    for version in [Version::V3, Version::V5] {
        let mut whole = BytesMut::new();
        let packet = Outbound::Publish(7, Box::new(message.clone()));
        encode(version, packet, LARGEST_PACKET, &mut whole).unwrap();
        let mut arrived = BytesMut::new();
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(decode(version, &mut arrived).unwrap(), None, "after {at} bytes");
            arrived.extend_from_slice(&[*byte]);
        }
        assert_eq!(decode(version, &mut arrived).unwrap(), Some(Inbound::Publish(7, message.clone())));
        assert!(arrived.is_empty());
    }
}

#[test]
fn what_only_mqtt_5_carries_travels_there_and_is_left_out_before() {
    let extra = Extra {
        response_topic: Some("reply/here".into()),
        correlation: Some(Bytes::from_static(&[0, 255])),
        user: vec![("unit".into(), "°C".into())],
    };
    let message = Message { topic: "t".into(), extra: extra.clone(), ..Message::default() };
    for (version, expected) in [(Version::V3, Extra::default()), (Version::V5, extra)] {
        let mut wire = BytesMut::new();
        encode(version, Outbound::Publish(0, Box::new(message.clone())), LARGEST_PACKET, &mut wire).unwrap();
        let Some(Inbound::Publish(0, read)) = decode(version, &mut wire).unwrap() else {
            panic!("no message")
        };
        assert_eq!(read.extra, expected);
    }
}

#[test]
fn a_refusal_is_told_in_words() {
    let refused = |code| {
        let ack = v5::ConnAck { session_present: false, code, properties: None };
        decode(Version::V5, &mut bytes(&v5::Packet::ConnAck(ack))).unwrap().unwrap()
    };
    assert_eq!(
        refused(v5::ConnectReturnCode::UnsupportedProtocolVersion),
        Inbound::Refused("it does not speak MQTT 5; try version = \"3.1.1\"".into())
    );
    assert_eq!(
        refused(v5::ConnectReturnCode::ServerBusy),
        Inbound::Refused("it refuses the connection: server busy".into())
    );
}

#[test]
fn a_packet_beyond_the_limit_is_not_written() {
    let message = Message { payload: Bytes::from(vec![0; 2000]), topic: "t".into(), ..Message::default() };
    for version in [Version::V3, Version::V5] {
        let packet = Outbound::Publish(0, Box::new(message.clone()));
        let error = encode(version, packet, 1000, &mut BytesMut::new()).unwrap_err();
        assert!(matches!(error, CodecError::Write(_)), "{error}");
    }
}

#[test]
fn no_hello_shows_its_password() {
    let hello = Hello {
        client_id: "c".into(),
        keep_alive: 30,
        clean: true,
        login: Some(("user".into(), Secret::new("hidden-word"))),
        will: None,
    };
    let shown = format!("{:?}", Outbound::Connect(Box::new(hello)));
    assert!(shown.contains("user") && !shown.contains("hidden-word"), "{shown}");
}

proptest! {
    #[test]
    fn any_bytes_are_digested(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        for version in [Version::V3, Version::V5] {
            let mut arrived = BytesMut::from(data.as_slice());
            while let Ok(Some(_)) = decode(version, &mut arrived) {}
        }
    }
}
