//! The `data` of a call's answer.

use serde_json::{Map, Value as Json};

use super::plan::{Kind, Settled, Target};
use crate::dialects::ithings::fault::Fault;
use crate::dialects::ithings::wire;
use crate::model::command::Outcome;

impl Kind {
    /// A failed write is worded as one, whatever failed.
    pub(super) fn word(self, fault: &Fault) -> Fault {
        let msg = match self {
            Self::Control => format!("指令发送失败:{}", fault.msg),
            Self::GetReport | Self::Action => fault.msg.clone(),
        };
        Fault { code: fault.code, msg }
    }
}

/// `data` of a call that did not fail.
pub(super) fn data(kind: Kind, target: &Target, settled: &Settled) -> Map<String, Json> {
    let token = Json::from(&*target.message_id);
    let msg = if target.ignored.is_empty() {
        "成功".to_owned()
    } else {
        format!("成功:忽略 {}", target.ignored.join(","))
    };
    match (kind, settled) {
        (Kind::Control | Kind::GetReport, Settled::Ignored) => {
            let msg = if kind == Kind::Control {
                "该设备无控制的属性,忽略"
            } else {
                "该设备无查询的属性,忽略"
            };
            object([("code", 200.into()), ("msg", msg.into()), ("msgToken", "".into())])
        }
        // The one answer of the real server that carries nothing but the token.
        (Kind::Action, Settled::Accepted | Settled::Ignored | Settled::Failed(_)) => {
            object([("msgToken", token), ("outputParams", "".into()), ("msg", "".into()), ("code", 0.into())])
        }
        (Kind::Action, Settled::Done(outcome, _)) => {
            let outputs = Json::Object(given(outcome)).to_string();
            let members = [
                ("msgToken", token),
                ("outputParams", outputs.into()),
                ("msg", msg.into()),
                ("code", 200.into()),
            ];
            object(members)
        }
        (Kind::GetReport, Settled::Done(outcome, at)) => {
            let params = Json::Object(given(outcome)).to_string();
            let members = [
                ("code", 200.into()),
                ("msg", msg.into()),
                ("msgToken", token),
                ("timestamp", at.0.into()),
                ("params", params.into()),
            ];
            object(members)
        }
        (Kind::Control | Kind::GetReport, Settled::Accepted | Settled::Failed(_) | Settled::Done(..)) => {
            object([("code", 200.into()), ("msg", msg.into()), ("msgToken", token)])
        }
    }
}

/// One device's line in the answer of a call for several.
pub(super) fn line(kind: Kind, target: &Target, settled: &Settled) -> Map<String, Json> {
    let mut line =
        object([("productID", target.product.as_str().into()), ("deviceName", target.name.as_str().into())]);
    let (code, msg) = match settled {
        Settled::Failed(fault) => {
            let fault = kind.word(fault);
            let token = Json::from(&*target.message_id);
            let code = Json::from(fault.code);
            line.extend(object([("code", code), ("msg", fault.msg.as_str().into()), ("msgToken", token)]));
            (fault.code, fault.msg)
        }
        Settled::Accepted | Settled::Ignored | Settled::Done(..) => {
            line.extend(data(kind, target, settled));
            (200, "成功".to_owned())
        }
    };
    line.extend(object([("sysCode", code.into()), ("sysMsg", msg.into())]));
    line
}

/// What a device gave back.
fn given(outcome: &Outcome) -> Map<String, Json> {
    match outcome {
        Outcome::Confirmed { values, outputs } => {
            wire::values(values.iter().chain(outputs).map(|(id, value)| (id, value)))
        }
        Outcome::Rejected(_) | Outcome::Offline | Outcome::TimedOut | Outcome::Busy | Outcome::Forbidden => {
            Map::new()
        }
    }
}

/// A JSON object of these members.
pub(super) fn object<const N: usize>(members: [(&str, Json); N]) -> Map<String, Json> {
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
