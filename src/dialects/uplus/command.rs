//! What a client asks, from text to a checked command.
//!
//! Checks run in the order of the codes, each over the whole request before the next: form (34001), typeId (34002),
//! grant (34003 for subscribe, 34004 for unsubscribe); within one check the first failing item is named. So the same
//! mistake always gets the same code, and a request is granted whole or not at all.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::Desc;
use super::relation::{self, Key, Relation, Topic};
use crate::dialects::shared::lenient;
use crate::model::client::Client;
use crate::model::directory::Directory;
use crate::model::interest;

/// Distinct relations in one request, the vendor's limit.
pub(super) const RELATIONS: usize = 500;

/// Longest part of a client's text that is repeated to it.
const ECHO_CHARS: usize = 64;

/// Longest deviceId; one of ours has twelve characters.
const DEVICE_ID_BYTES: usize = 64;

/// Failure codes of the vendor's table, whose meanings are its own and whose triggers are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// Illegal parameters.
    Parameters,
    /// Illegal typeId.
    TypeId,
    /// Subscription not granted.
    Subscribe,
    /// Cancelling not granted.
    Unsubscribe,
    /// A search went wrong inside.
    Search,
    /// The connection is not one of the group.
    Connection,
    /// Something else went wrong inside.
    Unknown,
}

impl Code {
    /// As it is written on the wire.
    pub(super) fn wire(self) -> &'static str {
        match self {
            Self::Parameters => "34001",
            Self::TypeId => "34002",
            Self::Subscribe => "34003",
            Self::Unsubscribe => "34004",
            Self::Search => "34005",
            Self::Connection => "34006",
            Self::Unknown => "34999",
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Hold these too.
    Subscribe(Vec<Granted>),
    /// No longer hold these.
    Unsubscribe(Vec<Granted>),
    /// All relations of the group.
    SearchSystem,
    /// The relations of this connection.
    SearchClient,
    /// Say that you are there.
    KeepAlive,
    /// Something that cannot be done; answered in its turn like everything else.
    Refused(Refused),
}

/// A relation that the client may have, in the dialect's and in the hub's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// As the client knows it.
    pub(super) relation: Relation,
    /// As the group keeps it.
    pub(super) held: interest::Relation,
}

/// The answer to a request that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The `cmd` of the answer, with `-ack`.
    pub(super) ack: String,
    /// Why.
    pub(super) code: Code,
    /// Why, in words.
    pub(super) desc: String,
}

impl Command {
    /// Reads one message of a client.
    pub(super) fn read(text: &str, client: &Client, directory: &Directory) -> Self {
        parse(text, client, directory).unwrap_or_else(Self::Refused)
    }

    /// What it takes up while it waits: one, and one for each relation.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Subscribe(relations) | Self::Unsubscribe(relations) => 1 + relations.len(),
            Self::SearchSystem | Self::SearchClient | Self::KeepAlive | Self::Refused(_) => 1,
        }
    }
}

type Problem = (Code, String);

fn parse(text: &str, client: &Client, directory: &Directory) -> Result<Command, Refused> {
    let nameless = |desc: &str| Refused { ack: ack_of(""), code: Code::Parameters, desc: desc.to_owned() };
    let json = lenient::parse(text).map_err(|error| nameless(&shown(&error.to_string())))?;
    let request = json.as_object().ok_or_else(|| nameless("a request is a JSON object"))?;
    let cmd = request.get("cmd").and_then(Json::as_str).ok_or_else(|| nameless("cmd must be a string"))?;
    let change = |denied| {
        granted(request, client, directory, denied).map_err(|(code, desc)| Refused {
            ack: ack_of(cmd),
            code,
            desc,
        })
    };
    match cmd {
        "subscribe" => change(Code::Subscribe).map(Command::Subscribe),
        "unsubscribe" => change(Code::Unsubscribe).map(Command::Unsubscribe),
        "searchSystem" => Ok(Command::SearchSystem),
        "searchClient" => Ok(Command::SearchClient),
        "keepAlive" => Ok(Command::KeepAlive),
        unknown => {
            let desc = format!("cmd {} does not exist", shown(unknown));
            Err(Refused { ack: ack_of(unknown), code: Code::Parameters, desc })
        }
    }
}

/// The `cmd` of the answer. A name that is no command's name is not repeated, and a client that invents
/// `authenticate` is not told that its login has failed.
fn ack_of(cmd: &str) -> String {
    let usable = (1..=ECHO_CHARS).contains(&cmd.len())
        && cmd != "authenticate"
        && cmd.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    format!("{}-ack", if usable { cmd } else { "error" })
}

fn granted(
    request: &Map<String, Json>,
    client: &Client,
    directory: &Directory,
    denied: Code,
) -> Result<Vec<Granted>, Problem> {
    let wanted = wanted(request)?;
    if let Some((_, key)) = wanted.iter().find(|(_, key)| !key.well_formed()) {
        let (Key::Type(type_id) | Key::Device { type_id, .. }) = key;
        return Err((Code::TypeId, format!("typeId {} is malformed", shown(type_id))));
    }
    let grant = |(topic, key): (&str, Key)| {
        let unknown = || (denied, format!("topic {} is not granted", shown(topic)));
        let relation = Relation { topic: Topic::named(topic).ok_or_else(unknown)?, key };
        match relation.grant(client, directory) {
            Some(held) => Ok(Granted { relation, held }),
            None => Err((denied, format!("{} is not granted", relation.described(Desc::default())))),
        }
    };
    wanted.into_iter().map(grant).collect()
}

/// The distinct topics and keys that a request names, in its order.
fn wanted(request: &Map<String, Json>) -> Result<Vec<(&str, Key)>, Problem> {
    let data =
        request.get("data").and_then(Json::as_object).ok_or_else(|| illegal("data must be an object"))?;
    let subdata = list(data.get("subdata"), "data.subdata")?;
    let mut wanted = Distinct::default();
    for item in subdata {
        let item = item.as_object().ok_or_else(|| illegal("an item of data.subdata must be an object"))?;
        let topic = item.get("topic").and_then(Json::as_str).filter(|topic| !topic.is_empty());
        let topic = topic.ok_or_else(|| illegal("topic must be a string"))?;
        let keys =
            item.get("keys").and_then(Json::as_object).ok_or_else(|| illegal("keys must be an object"))?;
        let (type_ids, devices) = (keys.get("typeId"), keys.get("deviceId"));
        if type_ids.is_none() && devices.is_none() {
            return Err(illegal("keys must hold typeId or deviceId"));
        }
        if type_ids.is_some() {
            for type_id in list(type_ids, "keys.typeId")? {
                let type_id = type_id.as_str().ok_or_else(|| illegal("a typeId must be a string"))?;
                wanted.add(topic, Key::Type(type_id.into()))?;
            }
        }
        if devices.is_some() {
            for device in list(devices, "keys.deviceId")? {
                for key in device_keys(device)? {
                    wanted.add(topic, key)?;
                }
            }
        }
    }
    wanted.finish()
}

fn device_keys(device: &Json) -> Result<Vec<Key>, Problem> {
    let device = device.as_object().ok_or_else(|| illegal("an item of keys.deviceId must be an object"))?;
    let type_id = device.get("typeId").and_then(Json::as_str);
    let type_id = type_id.ok_or_else(|| illegal("keys.deviceId.typeId must be a string"))?;
    let type_id = Arc::<str>::from(type_id);
    let key = |mac: &Json| {
        let mac = mac.as_str().filter(|mac| (1..=DEVICE_ID_BYTES).contains(&mac.len()));
        let mac =
            mac.filter(|mac| mac.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte)));
        let mac = mac.ok_or_else(|| illegal("a mac must be the id of one device"))?;
        Ok(Key::Device { type_id: Arc::clone(&type_id), mac: mac.to_ascii_uppercase().into() })
    };
    list(device.get("mac"), "keys.deviceId.mac")?.iter().map(key).collect()
}

/// Collects each pair once, and refuses what the vendor's page rules out of one request.
#[derive(Default)]
struct Distinct<'a> {
    order: Vec<(&'a str, Key)>,
    seen: HashSet<(&'a str, Key)>,
}

impl<'a> Distinct<'a> {
    fn add(&mut self, topic: &'a str, key: Key) -> Result<(), Problem> {
        if !self.seen.insert((topic, key.clone())) {
            return Ok(());
        }
        if self.order.len() == RELATIONS {
            return Err(illegal(&format!("more than {RELATIONS} relations in one request")));
        }
        self.order.push((topic, key));
        Ok(())
    }

    fn finish(self) -> Result<Vec<(&'a str, Key)>, Problem> {
        let every = Key::Type("*".into());
        for (topic, key) in &self.order {
            let Key::Type(pattern) = key else { continue };
            if relation::prefix(pattern).is_some() && self.seen.contains(&(*topic, every.clone())) {
                return Err(illegal(&format!("* cannot be mixed with {pattern}")));
            }
        }
        Ok(self.order)
    }
}

fn list<'a>(json: Option<&'a Json>, name: &str) -> Result<&'a [Json], Problem> {
    match json.and_then(Json::as_array) {
        Some(items) if !items.is_empty() => Ok(items),
        _ => Err(illegal(&format!("{name} must be a list that is not empty"))),
    }
}

fn illegal(desc: &str) -> Problem {
    (Code::Parameters, desc.to_owned())
}

/// A client's text, cut where it gets long.
fn shown(text: &str) -> String {
    text.chars().take(ECHO_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dialects::uplus::tests::{PRESS, client, context};

    fn read(text: &str) -> Command {
        let context = context(None);
        Command::read(text, &client(), &context.directory)
    }

    fn code(text: &str) -> String {
        match read(text) {
            Command::Refused(Refused { ack, code, .. }) => format!("{ack} {}", code.wire()),
            Command::Subscribe(_)
            | Command::Unsubscribe(_)
            | Command::SearchSystem
            | Command::SearchClient
            | Command::KeepAlive => "taken".to_owned(),
        }
    }

    fn subscribe(subdata: &str) -> String {
        format!("{{'cmd':'subscribe','data':{{'subdata':[{subdata}]}}}}")
    }

    #[test]
    fn each_mistake_gets_its_own_code() {
        let rows = [
            ("", "error-ack 34001"),
            ("hello", "error-ack 34001"),
            ("[]", "error-ack 34001"),
            ("{}", "error-ack 34001"),
            ("{'cmd':7}", "error-ack 34001"),
            ("{'cmd':''}", "error-ack 34001"),
            ("{'cmd':'a b'}", "error-ack 34001"),
            ("{'cmd':'authenticate'}", "error-ack 34001"),
            ("{'cmd':'dance'}", "dance-ack 34001"),
            ("{'cmd':'Subscribe'}", "Subscribe-ack 34001"),
            ("{'cmd':'subscribe'}", "subscribe-ack 34001"),
            ("{'cmd':'subscribe','data':'x'}", "subscribe-ack 34001"),
            ("{'cmd':'subscribe','data':{'subdata':{}}}", "subscribe-ack 34001"),
            ("{'cmd':'unsubscribe','data':{'subdata':[]}}", "unsubscribe-ack 34001"),
            ("{'cmd':'keepAlive','more':1}", "taken"),
        ];
        for (text, expected) in rows {
            assert_eq!(code(text), expected, "{text}");
        }
    }

    #[test]
    fn the_checks_run_in_the_order_of_their_codes() {
        let press = format!("{{'topic':'DEV_EVENT','keys':{{'typeId':['{PRESS}']}}}}");
        let rows = [
            ("7", "subscribe-ack 34001"),
            ("{'topic':7,'keys':{'typeId':['a']}}", "subscribe-ack 34001"),
            ("{'topic':'','keys':{'typeId':['a']}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT'}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{'typeId':[]}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{'typeId':'a'}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{'typeId':[1]}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{'typeId':['*','0*']}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{'deviceId':[{'typeId':'a'}]}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{'deviceId':[{'mac':['a']}]}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{'deviceId':[{'typeId':'a','mac':['*']}]}}", "subscribe-ack 34001"),
            ("{'topic':'DEV_EVENT','keys':{'typeId':['a b']}}", "subscribe-ack 34002"),
            ("{'topic':'DEV_NONE','keys':{'typeId':['']}}", "subscribe-ack 34002"),
            ("{'topic':'DEV_NONE','keys':{'typeId':['*']}}", "subscribe-ack 34003"),
            ("{'topic':'dev_event','keys':{'typeId':['*']}}", "subscribe-ack 34003"),
            ("{'topic':'DEV_EVENT','keys':{'typeId':['nobody']}}", "subscribe-ack 34003"),
            (
                "{'topic':'DEV_EVENT','keys':{'typeId':['*']}},{'topic':'DEV_STATUS','keys':{'typeId':['0*']}}",
                "taken",
            ),
            ("{'topic':'DEV_EVENT','keys':{'typeId':['0*','1*']}}", "taken"),
            (press.as_str(), "taken"),
        ];
        for (subdata, expected) in rows {
            assert_eq!(code(&subscribe(subdata)), expected, "{subdata}");
        }
        let late_mistake = format!("{press},{{'topic':'DEV_NONE','keys':{{'typeId':['*']}}}},7");
        assert_eq!(code(&subscribe(&late_mistake)), "subscribe-ack 34001");
        let denied = "{'cmd':'unsubscribe','data':{'subdata':[{'topic':'X','keys':{'typeId':['*']}}]}}";
        assert_eq!(code(denied), "unsubscribe-ack 34004");
    }

    #[test]
    fn duplicates_are_one_relation_at_the_place_of_the_first() {
        let item = format!("{{'topic':'DEV_EVENT','keys':{{'typeId':['*','{PRESS}','*']}}}}");
        let Command::Subscribe(granted) = read(&subscribe(&format!("{item},{item}"))) else {
            panic!("not taken");
        };
        let labels: Vec<_> = granted.iter().map(|granted| granted.held.label.to_string()).collect();
        assert_eq!(labels, ["DEV_EVENT *".to_owned(), format!("DEV_EVENT {PRESS}")]);
    }

    #[test]
    fn the_limit_counts_distinct_relations() {
        let items = |distinct: usize| {
            let ids: Vec<_> = (0..distinct).chain(0..distinct).map(|n| format!("'t{n}'")).collect();
            code(&subscribe(&format!("{{'topic':'DEV_EVENT','keys':{{'typeId':[{}]}}}}", ids.join(","))))
        };
        assert_eq!(items(RELATIONS), "subscribe-ack 34003");
        assert_eq!(items(RELATIONS + 1), "subscribe-ack 34001");
    }

    #[test]
    fn a_device_is_found_by_its_mac_in_either_case() {
        let text = format!(
            "{{'topic':'DEV_EVENT','keys':{{'deviceId':[{{'typeId':'{PRESS}','mac':['0000000000a1']}}]}}}}"
        );
        assert_eq!(code(&subscribe(&text)), "taken");
    }

    #[test]
    fn a_long_name_is_not_repeated_whole() {
        let Command::Refused(refused) = read(&format!("{{'cmd':'{}'}}", "x".repeat(10_000))) else {
            panic!("taken");
        };
        assert!(refused.desc.len() < 200 && refused.ack == "error-ack");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            prop_assert!(read(&text).weight() >= 1);
        }

        #[test]
        fn no_json_makes_it_panic(
            cmd in "subscribe|unsubscribe|search[A-Z]*|[a-z]*",
            topic in "DEV_EVENT|\\*|[A-Z_]*",
            key in "typeId|deviceId|[a-z]*",
            value in "'\\*'|\\{'typeId':'a','mac':\\['b'\\]\\}|[0-9]+|\\[\\]|null",
        ) {
            let text =
                format!("{{'cmd':'{cmd}','data':{{'subdata':[{{'topic':'{topic}','keys':{{'{key}':[{value}]}}}}]}}}}");
            prop_assert!(read(&text).weight() >= 1);
        }
    }
}
