//! Answers of every kind, in pieces, behind noise, and damaged.

use proptest::prelude::*;

use super::*;
use crate::proto::modbus::{Span, Table};

fn rtu(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc16(bytes).to_le_bytes()].concat()
}

fn holding(address: u16, count: u16) -> Request {
    Request::Read(Span::new(Table::Holding, address, count).unwrap())
}

fn waiting(request: &Request) -> Reply {
    Reply::new(7, request, Framing::Rtu)
}

fn found(registers: &[u16]) -> Progress {
    Progress::Complete(Answer::Registers(registers.to_vec()))
}

#[test]
fn each_kind_of_answer_is_understood() {
    let coils = Request::Read(Span::new(Table::Coil, 3, 10).unwrap());
    let ten = [true, false, true, true, false, false, true, true, true, false].to_vec();
    let cases: [(Request, &[u8], Answer); 7] = [
        (coils.clone(), &[7, 1, 2, 0xCD, 1], Answer::Bits(ten)),
        (holding(9, 2), &[7, 3, 4, 0, 1, 0xFF, 0xFE], Answer::Registers(vec![1, 0xFFFE])),
        (Request::WriteCoil { address: 3, on: true }, &[7, 5, 0, 3, 0xFF, 0], Answer::Written),
        (Request::WriteRegister { address: 3, value: 258 }, &[7, 6, 0, 3, 1, 2], Answer::Written),
        (Request::WriteCoils { address: 3, values: vec![true; 9] }, &[7, 15, 0, 3, 0, 9], Answer::Written),
        (Request::WriteRegisters { address: 3, values: vec![1; 2] }, &[7, 16, 0, 3, 0, 2], Answer::Written),
        (coils, &[7, 0x81, 2], Answer::Exception(Exception(2))),
    ];
    for (request, frame, answer) in cases {
        assert_eq!(waiting(&request).feed(&rtu(frame)), Progress::Complete(answer.clone()), "{request}");
        let length = u8::try_from(frame.len()).unwrap();
        let tcp = [&[0x12, 0x34, 0, 0, 0, length], frame].concat();
        let mut reply = Reply::new(7, &request, Framing::Tcp { transaction: 0x1234 });
        assert_eq!(reply.feed(&tcp), Progress::Complete(answer), "{request}");
    }
}

#[test]
fn what_a_device_says_of_itself_is_read_in_any_pieces() {
    let names = [&[7, 43, 14, 1, 1, 0, 0, 2, 0, 3][..], b"ACM", &[1, 2], b"X1"].concat();
    let expected = Answer::Names(vec![(0, b"ACM".to_vec()), (1, b"X1".to_vec())]);
    let id = [&[7, 17, 5][..], b"abc", &[0xFF, 0]].concat();
    for (request, frame, answer) in [
        (Request::ReadIdentification, names, expected),
        (Request::ReportServerId, id, Answer::Data(b"abc\xFF\0".to_vec())),
        (Request::ReadIdentification, vec![7, 0xAB, 1], Answer::Exception(Exception(1))),
    ] {
        for (framing, stream) in
            [(Framing::Rtu, rtu(&frame)), (Framing::Ascii, super::super::ascii::encode(&frame))]
        {
            for size in 1..=stream.len() {
                let mut reply = Reply::new(7, &request, framing);
                let last = stream.chunks(size).map(|piece| reply.feed(piece)).last();
                assert_eq!(last, Some(Progress::Complete(answer.clone())), "{request} in pieces of {size}");
            }
        }
    }
}

#[test]
fn each_defect_is_named() {
    let request = holding(9, 1);
    let damaged = [7, 3, 2, 0, 1, 0, 0];
    let cases: [(&[u8], Defect); 7] = [
        (&[], Defect::Silence),
        (&rtu(&[8, 3, 2, 0, 1]), Defect::WrongUnit { expected: 7, found: 8 }),
        (&rtu(&[7, 4, 2, 0, 1]), Defect::WrongFunction { expected: 3, found: 4 }),
        (&rtu(&[7, 3, 4, 0, 1, 0, 2]), Defect::WrongCount { expected: 2, found: 4 }),
        (&damaged, Defect::Checksum),
        (&[7, 3, 2, 0], Defect::Truncated { expected: 7, found: 4 }),
        (&[7], Defect::Truncated { expected: 7, found: 1 }),
    ];
    for (bytes, defect) in cases {
        let mut reply = waiting(&request);
        assert_eq!(reply.feed(bytes), Progress::Incomplete);
        assert_eq!(reply.defect(), defect);
    }
    let mut reply = waiting(&Request::WriteRegister { address: 1, value: 2 });
    assert_eq!(reply.feed(&rtu(&[7, 6, 0, 1, 0, 3])), Progress::Incomplete);
    assert_eq!(reply.defect(), Defect::WrongEcho);
}

#[test]
fn an_answer_behind_noise_and_foreign_frames_is_found() {
    let noise = [7, 3, 2, 0, 0xFF, 7];
    let foreign = rtu(&[8, 3, 2, 0, 9]);
    let late = rtu(&[7, 3, 4, 0, 1, 0, 2]);
    let good = rtu(&[7, 3, 2, 0x12, 0x34]);
    let all = [&noise[..], &foreign, &late, &good].concat();
    assert_eq!(waiting(&holding(9, 1)).feed(&all), found(&[0x1234]));
}

#[test]
fn an_echo_is_recognised_by_a_read_and_then_left_out() {
    let sent = holding(9, 1).encode(7, Framing::Rtu).unwrap();
    let heard = [&sent[..], &rtu(&[7, 3, 2, 0, 5])].concat();
    let mut reply = waiting(&holding(9, 1));
    assert_eq!(reply.feed(&heard), found(&[5]));
    assert!(reply.began_with_echo_of(&sent));

    let write = Request::WriteRegister { address: 1, value: 2 };
    let sent = write.encode(7, Framing::Rtu).unwrap();
    let mut reply = waiting(&write).behind_echo_of(&sent);
    for byte in &sent {
        assert_eq!(reply.feed(&[*byte]), Progress::Incomplete);
    }
    assert_eq!(reply.feed(&sent), Progress::Complete(Answer::Written));
    let mut other = waiting(&holding(9, 1)).behind_echo_of(&sent);
    assert_eq!(other.feed(&rtu(&[7, 3, 2, 0, 5])), found(&[5]), "a line that has ceased to echo");
}

#[test]
fn a_stale_transaction_is_passed_over() {
    let mut reply = Reply::new(7, &holding(9, 1), Framing::Tcp { transaction: 5 });
    let stale = [0, 4, 0, 0, 0, 5, 7, 3, 2, 0, 1];
    let fresh = [0, 5, 0, 0, 0, 5, 7, 3, 2, 0, 2, 0, 6, 0];
    assert_eq!(reply.feed(&stale), Progress::Incomplete);
    assert_eq!(reply.feed(&fresh), found(&[2]));
    assert_eq!(reply.into_rest(), [0, 6, 0]);
}

#[test]
fn a_stream_that_is_no_modbus_is_bad_at_once() {
    for bytes in [&b"HTTP/1.1 400"[..], &[0, 5, 0, 0, 0, 0], &[0, 5, 0, 0, 1, 0], &[0, 5, 0, 0, 0, 2]] {
        let mut reply = Reply::new(7, &holding(9, 1), Framing::Tcp { transaction: 5 });
        assert_eq!(reply.feed(bytes), Progress::Bad(Defect::NotModbus));
    }
    let wrong: [(&[u8], Defect); 3] = [
        (&[0, 5, 0, 0, 0, 5, 8, 3, 2, 0, 1], Defect::WrongUnit { expected: 7, found: 8 }),
        (&[0, 5, 0, 0, 0, 4, 7, 3, 2, 0], Defect::Truncated { expected: 4, found: 3 }),
        (&[0, 5, 0, 0, 0, 7, 7, 3, 4, 0, 1, 0, 1], Defect::WrongCount { expected: 2, found: 4 }),
    ];
    for (bytes, defect) in wrong {
        let mut reply = Reply::new(7, &holding(9, 1), Framing::Tcp { transaction: 5 });
        assert_eq!(reply.feed(bytes), Progress::Bad(defect));
    }
}

#[test]
fn skipping_keeps_the_beginning_of_the_next_frame() {
    let mut buffer = [&[0, 4, 0, 0, 0, 5, 7, 3, 2, 0, 1][..], &[0, 5, 0, 0, 0, 5, 7]].concat();
    assert_eq!(skip_stale(&mut buffer), Ok(()));
    assert_eq!(buffer, [0, 5, 0, 0, 0, 5, 7]);
    assert_eq!(skip_stale(&mut b"SSH-2.0-x".to_vec()), Err(Defect::NotModbus));
}

prop_compose! {
    fn any_request()(
        kind in 0..11_u8, address in 0..60_000_u16, count in 1..=123_u16, value: u16,
    ) -> Request {
        let read = |table| Request::Read(Span::new(table, address, count).unwrap());
        match kind {
            0 => read(Table::Coil),
            1 => read(Table::Discrete),
            2 => read(Table::Input),
            3 => read(Table::Holding),
            4 => Request::WriteCoil { address, on: value > 9 },
            5 => Request::WriteRegister { address, value },
            6 => Request::WriteCoils { address, values: vec![true; usize::from(count)] },
            7 => Request::MaskRegister { address, and: value, or: count },
            8 => Request::WriteRegisters { address, values: vec![value; usize::from(count)] },
            9 => Request::ReportServerId,
            _ => Request::ReadIdentification,
        }
    }
}

/// A right answer to a request, with data bytes from a pattern, and what it says.
fn answer_to(request: &Request, seed: u8) -> (Vec<u8>, Answer) {
    let shape = Shape::of(request);
    let data = |bytes: u8| (0..bytes).map(|at| at.wrapping_mul(31) ^ seed).collect::<Vec<u8>>();
    match shape.body {
        Body::Bits { bytes, count } => (
            [&[7, shape.function, bytes][..], &data(bytes)].concat(),
            Answer::Bits(bits(&data(bytes), count)),
        ),
        Body::Registers { bytes } => (
            [&[7, shape.function, bytes][..], &data(bytes)].concat(),
            Answer::Registers(registers(&data(bytes))),
        ),
        Body::Echo(echo) => ([&[7, shape.function][..], &echo].concat(), Answer::Written),
        Body::MaskEcho(echo) => ([&[7, shape.function][..], &echo].concat(), Answer::Written),
        Body::Data => ([&[7, 17, 3][..], &data(3)].concat(), Answer::Data(data(3))),
        Body::Names => {
            let answer = Answer::Names(vec![(1, data(3))]);
            ([&[7, 43, 14, 1, 1, 0, 0, 1, 1, 3][..], &data(3)].concat(), answer)
        }
    }
}

/// Feeds in pieces of the given sizes, over and over.
fn feed_in_pieces(reply: &mut Reply, mut bytes: &[u8], sizes: &[usize]) -> Progress {
    for size in sizes.iter().cycle() {
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        match reply.feed(piece) {
            Progress::Incomplete if !rest.is_empty() => bytes = rest,
            progress @ (Progress::Incomplete | Progress::Complete(_) | Progress::Bad(_)) => {
                return progress;
            }
        }
    }
    Progress::Incomplete
}

proptest! {
    #[test]
    fn no_bytes_in_any_pieces_do_harm(
        request in any_request(), bytes: Vec<u8>, sizes in prop::collection::vec(1..40_usize, 1..5), tcp: bool,
    ) {
        let framing = if tcp { Framing::Tcp { transaction: 0 } } else { Framing::Rtu };
        let mut reply = Reply::new(7, &request, framing);
        feed_in_pieces(&mut reply, &bytes, &sizes);
        prop_assert!(!reply.defect().to_string().is_empty());
        prop_assert!(reply.buffer.len() <= 2 * LONGEST_FRAME);
    }

    #[test]
    fn a_right_answer_is_found_in_any_pieces_behind_foreign_noise(
        request in any_request(), seed: u8, sizes in prop::collection::vec(1..40_usize, 1..5),
        noise in prop::collection::vec((0..=255_u8).prop_filter("not ours", |byte| *byte != 7), 0..50),
    ) {
        let (body, answer) = answer_to(&request, seed);
        let bytes = [noise, rtu(&body)].concat();
        let mut reply = waiting(&request);
        prop_assert_eq!(feed_in_pieces(&mut reply, &bytes, &sizes), Progress::Complete(answer));
    }

    #[test]
    fn one_flipped_bit_is_never_an_answer(request in any_request(), seed: u8, at: prop::sample::Index) {
        let (body, _) = answer_to(&request, seed);
        let mut bytes = rtu(&body);
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(waiting(&request).feed(&bytes), Progress::Incomplete);
    }
}
