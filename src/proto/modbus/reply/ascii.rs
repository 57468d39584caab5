//! Looks for the answer in ASCII frames. Their beginning and end are marked, so a frame is either whole or not there.

use super::{Defect, Look, Progress, Reply};
use crate::proto::modbus::ascii;

impl Reply {
    pub(super) fn scan_ascii(&mut self) -> Progress {
        loop {
            // Only what a colon begins can be a frame; a colon inside shows that the frame before it was cut off.
            let Some(start) = self.buffer.iter().position(|byte| *byte == ascii::START) else {
                self.buffer.clear();
                return Progress::Incomplete;
            };
            self.buffer.drain(..start);
            let inside = self.buffer.get(1..).unwrap_or_default();
            let stop = inside.iter().position(|byte| matches!(*byte, ascii::START | ascii::END));
            let Some(stop) = stop.map(|at| at + 1) else {
                self.truncated =
                    Some(Defect::Truncated { expected: self.expected_length(), found: self.buffer.len() });
                if self.buffer.len() > super::LONGEST_ASCII {
                    self.buffer.clear();
                }
                return Progress::Incomplete;
            };
            self.truncated = None;
            let ended = self.buffer.get(stop) == Some(&ascii::END);
            let frame: Vec<u8> = self.buffer.drain(..if ended { stop + 1 } else { stop }).collect();
            let look = match frame.get(1..stop).filter(|_| ended).and_then(ascii::decode) {
                Some(body) => self.look_body(&body),
                None => Look::Wrong(Defect::Checksum),
            };
            match look {
                Look::Whole(_, answer) => return Progress::Complete(answer),
                Look::Short(expected) => {
                    self.worst =
                        self.worst.max(Defect::Truncated { expected: expected * 2 + 1, found: frame.len() });
                }
                Look::Wrong(defect) => self.worst = self.worst.max(defect),
            }
        }
    }

    /// Unit, function code and data of a whole frame.
    fn look_body(&self, body: &[u8]) -> Look {
        match body.split_first() {
            None => Look::Wrong(Defect::Checksum),
            Some((found, _)) if *found != self.unit => {
                Look::Wrong(Defect::WrongUnit { expected: self.unit, found: *found })
            }
            Some((_, pdu)) => match self.shape.look(pdu) {
                Look::Whole(length, _) if length != pdu.len() => {
                    Look::Wrong(Defect::Truncated { expected: length + 3, found: pdu.len() + 3 })
                }
                other @ (Look::Whole(..) | Look::Wrong(_)) => other,
                Look::Short(length) => Look::Short(length + 3),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::frame::{Answer, Exception, Framing, Request};
    use super::super::super::{Span, Table};
    use super::*;

    fn waiting() -> Reply {
        Reply::new(7, &Request::Read(Span::new(Table::Holding, 9, 2).unwrap()), Framing::Ascii)
    }

    fn good() -> Vec<u8> {
        ascii::encode(&[7, 3, 4, 0, 1, 0, 2])
    }

    #[test]
    fn an_answer_is_found_in_any_pieces_and_behind_anything() {
        let found = Progress::Complete(Answer::Registers(vec![1, 2]));
        let cut = good().split_off(3);
        let foreign = ascii::encode(&[8, 3, 4, 0, 9, 0, 9]);
        for noise in [vec![], b"\r\n\xFF\0".to_vec(), cut, foreign, b":0703".to_vec(), b":0703\r\n".to_vec()]
        {
            let stream = [noise, good()].concat();
            for size in 1..=stream.len() {
                let mut reply = waiting();
                let last = stream.chunks(size).map(|piece| reply.feed(piece)).last();
                assert_eq!(last, Some(found.clone()), "in pieces of {size}");
            }
        }
    }

    #[test]
    fn a_refusal_is_understood_and_each_defect_is_named() {
        assert_eq!(
            waiting().feed(&ascii::encode(&[7, 0x83, 2])),
            Progress::Complete(Answer::Exception(Exception(2)))
        );
        let cases: [(Vec<u8>, Defect); 5] = [
            (vec![], Defect::Silence),
            (b":070304000100020F\r\n".to_vec(), Defect::Checksum),
            (ascii::encode(&[8, 3, 4, 0, 1, 0, 2]), Defect::WrongUnit { expected: 7, found: 8 }),
            (ascii::encode(&[7, 3, 2, 0, 1]), Defect::WrongCount { expected: 4, found: 2 }),
            (good()[..9].to_vec(), Defect::Truncated { expected: 19, found: 9 }),
        ];
        for (bytes, defect) in cases {
            let mut reply = waiting();
            assert_eq!(reply.feed(&bytes), Progress::Incomplete);
            assert_eq!(reply.defect(), defect);
        }
    }

    #[test]
    fn the_echo_of_a_two_wire_line_is_passed_over() {
        let request = Request::WriteRegister { address: 5, value: 6 };
        let sent = request.encode(7, Framing::Ascii).unwrap();
        let mut reply = Reply::new(7, &request, Framing::Ascii).behind_echo_of(&sent);
        assert_eq!(reply.feed(&sent), Progress::Incomplete);
        assert_eq!(reply.feed(&sent), Progress::Complete(Answer::Written));
        assert!(reply.began_with_echo_of(&sent));
    }

    #[test]
    fn what_never_ends_is_not_kept() {
        let mut reply = waiting();
        for _ in 0..10 {
            reply.feed(&[b':'; 400]);
            reply.feed(&[b'0'; 400]);
        }
        assert!(reply.into_rest().len() < 2000);
    }
}
