//! Faults: the numbers and words of the real server's error catalogue, as far as they can arise here.
//!
//! A message is the catalogue's text, then what is known beyond it, joined with a colon as the real server joins.

use super::wire;
use crate::model::command::{Outcome, Rejection};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Number in the catalogue.
    pub(super) code: u32,
    /// For people.
    pub(super) msg: String,
}

/// An entry of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    code: u32,
    text: &'static str,
}

impl Entry {
    /// The fault as the catalogue words it.
    pub(super) fn fault(self) -> Fault {
        Fault { code: self.code, msg: self.text.to_owned() }
    }

    /// The fault with what is known beyond it.
    pub(super) fn with(self, detail: &str) -> Fault {
        Fault { code: self.code, msg: format!("{}:{detail}", self.text) }
    }
}

impl Fault {
    /// The token is none of ours.
    pub(super) const BAD_TOKEN: Entry =
        Entry { code: 100_005, text: "登录失效,请退出重新登录:认证失败" };
    /// The request is wrong.
    pub(super) const PARAMETER: Entry = Entry { code: 100_006, text: "参数错误" };
    /// A field of the request is missing or of another type.
    pub(super) const FIELD: Entry = Entry { code: 100_006, text: "入参不正确" };
    /// The catalogue's word for everything else.
    pub(super) const SYSTEM: Entry = Entry { code: 100_007, text: "系统错误" };
    /// No such device, property or action, or none that the client may know of.
    pub(super) const NOT_FOUND: Entry = Entry { code: 100_009, text: "未查询到" };
    /// The client lacks the right.
    pub(super) const NO_RIGHT: Entry = Entry { code: 100_012, text: "权限不足" };
    /// Another HTTP method is wanted.
    pub(super) const METHOD: Entry = Entry { code: 100_013, text: "请求方法错误" };
    /// Not even an object.
    pub(super) const TYPE: Entry = Entry { code: 100_014, text: "参数的类型不对" };
    /// A value outside its range.
    pub(super) const RANGE: Entry = Entry { code: 100_015, text: "参数超出范围" };
    /// Too much waits already.
    pub(super) const BUSY: Entry = Entry { code: 100_017, text: "服务器繁忙" };
    /// Known, but not served.
    pub(super) const NOT_IMPLEMENTED: Entry = Entry { code: 100_018, text: "尚未实现" };
    /// More than is allowed.
    pub(super) const LIMIT: Entry = Entry { code: 100_027, text: "超出限制" };
    /// No token at all.
    pub(super) const NOT_LOGGED_IN: Entry =
        Entry { code: 1_000_007, text: "尚未登录:用户请求失败:认证失败" };
    /// The device answered with something else than it was told.
    pub(super) const BAD_REPLY: Entry = Entry { code: 2_000_001, text: "设备回复异常" };
    /// The device did not answer in time: whether it did what it was told is not known.
    pub(super) const TIMEOUT: Entry = Entry { code: 2_000_002, text: "设备回复超时" };
    /// The device is offline.
    pub(super) const OFFLINE: Entry = Entry { code: 2_000_003, text: "设备不在线" };
    /// The device said no.
    pub(super) const REFUSED: Entry = Entry { code: 2_000_004, text: "设备回复错误" };

    /// What an outcome says, if it is a failure.
    ///
    /// The real server lets a write of a read-only property through to the device. Ours cannot be written at all,
    /// so it is refused as a wrong parameter rather than acknowledged.
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        match outcome {
            Outcome::Confirmed { .. } => None,
            Outcome::Offline => Some(Self::OFFLINE.fault()),
            Outcome::TimedOut => Some(Self::TIMEOUT.fault()),
            Outcome::Busy => Some(Self::BUSY.fault()),
            Outcome::Forbidden => Some(Self::NO_RIGHT.fault()),
            Outcome::Rejected(rejection) => Some(Self::rejected(rejection)),
        }
    }

    fn rejected(rejection: &Rejection) -> Self {
        let entry = match rejection {
            Rejection::UnknownDevice(_) => return Self::NOT_FOUND.fault(),
            Rejection::ByDevice(words) => return Self::REFUSED.with(words),
            Rejection::UnknownProperty(_) | Rejection::UnknownFunction(_) => Self::NOT_FOUND,
            Rejection::ReadOnly(_)
            | Rejection::WriteOnly(_)
            | Rejection::WrongType { .. }
            | Rejection::MissingInput(_)
            | Rejection::UnknownInput(_)
            | Rejection::Empty => Self::PARAMETER,
            Rejection::OutOfRange { .. } | Rejection::Lease { .. } => Self::RANGE,
            Rejection::Mismatch { .. } | Rejection::Step { .. } => Self::BAD_REPLY,
            Rejection::Expired
            | Rejection::Superseded(_)
            | Rejection::TooSoon { .. }
            | Rejection::TooManyLeases(_) => Self::BUSY,
        };
        entry.with(&rejection.to_string())
    }

    /// As the body of an HTTP answer.
    pub(super) fn to_json(&self) -> String {
        wire::error(self, None, None)
    }
}
