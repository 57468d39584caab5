//! Keeps a late answer from being taken for the next one.
//!
//! An RTU answer does not say which request it belongs to. When a request has timed out, its answer may still come,
//! and if the next request to that unit expects an answer of the same form (same function, same number of registers)
//! nothing in the frame tells the two apart. What does tell them apart is order: a unit answers its requests one
//! after the other. So every timed-out request is a *debt* of its unit. The first frame that could pay a debt pays
//! the oldest one, and is not believed as the answer to anything else; a frame that can only be the answer to the
//! present request shows that the debts will never be paid. A debt is forgotten after a while, since a request that was lost on
//! the line is never answered.
//!
//! The price is one repeated read after a timeout, and only when the forms agree.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::{Answer, Request};
use super::reply::Shape;

/// Timed-out requests that are remembered for a whole bus. Debts live a few seconds and a request that is owed took
/// a whole timeout, so more than this cannot be open in practice; the oldest goes first.
const MOST_DEBTS: usize = 64;

/// Whether an answer can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It belongs to the request.
    Believed,
    /// It may be the late answer to an earlier request; asking again tells.
    Doubted,
}

/// The requests that timed out on one bus and may still be answered.
#[derive(Debug)]
pub struct Debts {
    lifetime: Duration,
    open: VecDeque<Debt>,
}

#[derive(Debug)]
struct Debt {
    unit: u8,
    request: Request,
    until: Instant,
}

impl Debts {
    /// No debts; each will be forgotten after `lifetime`.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, open: VecDeque::new() }
    }

    /// A request was sent and not answered in time.
    pub fn owe(&mut self, unit: u8, request: Request, now: Instant) {
        if self.open.len() >= MOST_DEBTS {
            self.open.pop_front();
        }
        self.open.push_back(Debt { unit, request, until: now + self.lifetime });
    }

    /// Judges a frame that came in while `request` was the last one sent to the unit, and books it.
    pub fn judge(&mut self, unit: u8, request: &Request, answer: &Answer, now: Instant) -> Trust {
        self.open.retain(|debt| debt.until > now);
        let paid =
            self.open.iter().position(|debt| debt.unit == unit && confusable(&debt.request, request, answer));
        match paid.and_then(|at| self.open.remove(at)) {
            // The same question twice: either answer is an answer to it.
            Some(debt) if debt.request == *request => Trust::Believed,
            Some(_) => Trust::Doubted,
            None => {
                self.open.retain(|debt| debt.unit != unit);
                Trust::Believed
            }
        }
    }

    /// The connection is new: nothing that was asked on the old one can be answered on it.
    pub fn forget(&mut self) {
        self.open.clear();
    }
}

/// Whether the frame could be the answer to either request.
fn confusable(earlier: &Request, request: &Request, answer: &Answer) -> bool {
    let (earlier, request) = (Shape::of(earlier), Shape::of(request));
    let same_function = earlier.function == request.function;
    same_function && (earlier.body == request.body || matches!(answer, Answer::Exception(_)))
}

#[cfg(test)]
mod tests {
    use super::super::frame::Exception;
    use super::super::{Span, Table};
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]
    fn start() -> Instant {
        Instant::now()
    }

    fn read(address: u16, count: u16) -> Request {
        Request::Read(Span::new(Table::Holding, address, count).unwrap())
    }

    fn one() -> Answer {
        Answer::Registers(vec![1])
    }

    fn debts() -> Debts {
        Debts::new(Duration::from_secs(2))
    }

    #[test]
    fn the_first_answer_of_the_same_form_pays_the_debt_and_the_second_is_believed() {
        let (mut debts, now) = (debts(), start());
        debts.owe(1, read(100, 1), now);
        assert_eq!(debts.judge(1, &read(200, 1), &one(), now), Trust::Doubted);
        assert_eq!(debts.judge(1, &read(200, 1), &one(), now), Trust::Believed);
    }

    #[test]
    fn each_timeout_is_one_debt() {
        let (mut debts, now) = (debts(), start());
        debts.owe(1, read(100, 1), now);
        debts.owe(1, read(101, 1), now);
        assert_eq!(debts.judge(1, &read(200, 1), &one(), now), Trust::Doubted);
        assert_eq!(debts.judge(1, &read(200, 1), &one(), now), Trust::Doubted);
        assert_eq!(debts.judge(1, &read(200, 1), &one(), now), Trust::Believed);
    }

    #[test]
    fn another_unit_or_form_is_believed_and_clears_the_debts_of_its_unit() {
        let (mut debts, now) = (debts(), start());
        debts.owe(1, read(100, 1), now);
        assert_eq!(debts.judge(2, &read(200, 1), &one(), now), Trust::Believed);
        assert_eq!(debts.judge(1, &read(200, 2), &Answer::Registers(vec![1, 2]), now), Trust::Believed);
        assert_eq!(debts.judge(1, &read(200, 1), &one(), now), Trust::Believed);
    }

    #[test]
    fn the_same_question_may_be_answered_late() {
        let (mut debts, now) = (debts(), start());
        debts.owe(1, read(100, 1), now);
        assert_eq!(debts.judge(1, &read(100, 1), &one(), now), Trust::Believed);
    }

    #[test]
    fn writes_are_told_apart_by_their_echo_but_not_by_what_it_leaves_out() {
        let (mut debts, now) = (debts(), start());
        let single = |value| Request::WriteRegister { address: 5, value };
        debts.owe(1, single(1), now);
        assert_eq!(debts.judge(1, &single(2), &Answer::Written, now), Trust::Believed);
        let multiple = |value| Request::WriteRegisters { address: 5, values: vec![value] };
        debts.owe(1, multiple(1), now);
        assert_eq!(debts.judge(1, &multiple(2), &Answer::Written, now), Trust::Doubted);
    }

    #[test]
    fn a_refusal_fits_every_request_of_its_function() {
        let (mut debts, now) = (debts(), start());
        debts.owe(1, read(100, 1), now);
        let refusal = Answer::Exception(Exception(2));
        assert_eq!(debts.judge(1, &read(200, 5), &refusal, now), Trust::Doubted);
    }

    #[test]
    fn a_debt_is_forgotten_in_time() {
        let (mut debts, now) = (debts(), start());
        debts.owe(1, read(100, 1), now);
        assert_eq!(debts.judge(1, &read(200, 1), &one(), now + Duration::from_secs(2)), Trust::Believed);
    }

    #[test]
    fn debts_are_bounded() {
        let (mut debts, now) = (debts(), start());
        for address in 0..1000 {
            debts.owe(1, read(address, 1), now);
        }
        assert_eq!(debts.open.len(), MOST_DEBTS);
    }
}
