//! Shipped MQTT products against the payloads that their projects document: `tests/products/mqtt/NAME.txt`.
//!
//! A file holds a conversation with one device. `NAME.toml` beside it defines a product of its own for the test; without
//! one the product is a shipped one. A new product needs a file here and no code. Lines:
//!
//! - `product ID` and `topic TEXT` come first; `# text` is a comment,
//! - `< TOPIC PAYLOAD`: the device publishes; `<r` the same, kept by the broker; `<c NUMBER` the same with that
//!   correlation data (MQTT 5); `<u {json}` the same with those user properties,
//! - `! write {json}`, `! read PROPERTY ...`, `! invoke FUNCTION {json}`: a client wants that; messages and clients' wishes
//!   are numbered from 1, whichever is ahead,
//! - `! wait SECONDS`: time passes,
//! - `> TOPIC QOS PAYLOAD`: what the gateway sends next; `>r` the same, to be kept,
//! - `= ...`: what the hub is told next, one line each.
//!
//! Everything that is sent and told must stand in the file, in order.
//!
//! `tests/products/homeassistant/NAME.txt` begins without a product: the device announces itself as Home Assistant's MQTT discovery
//! has it, and with `! announced` it is put together. What appears is told in the lines that follow: `= device ID NAME (PRODUCT)`,
//! then `= property ID TYPE ACCESS ...`, `= function ID`, `= event ID` for each, or `= gone ID`.

#![cfg(test)]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use pentad::clock;
use pentad::config::{Config, Source, resolve};
use pentad::dialects::shared::json::{from_json, to_json};
use pentad::drivers::mqtt::Members;
use pentad::drivers::mqtt::packet::{Extra, Message};
use pentad::drivers::mqtt::state::State;
use pentad::drivers::{CommandId, DriverAction, DriverCommand, Observation, Sample};
use pentad::model::command::Outcome;
use pentad::model::device::Device;
use pentad::model::identity;
use pentad::model::product::Access;
use pentad::model::time::Now;
use pentad::model::value::Value;
use serde_json::Value as Json;

#[path = "common/files.rs"]
#[expect(unreachable_pub, reason = "other tests share it")]
mod files;

use files::{root, texts};

#[test]
fn every_conversation_goes_as_documented() {
    let conversations = texts("tests/products/mqtt", "txt");
    assert!(conversations.len() > 10, "only {} conversations were found", conversations.len());
    let wrong: Vec<String> = conversations
        .iter()
        .filter_map(|(name, text)| play(name, text).err().map(|error| format!("{name}.txt:{error}")))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_device_that_announces_itself_becomes_what_it_is() {
    let conversations = texts("tests/products/homeassistant", "txt");
    assert!(conversations.len() > 6, "only {} conversations were found", conversations.len());
    let wrong: Vec<String> = conversations
        .iter()
        .filter_map(|(name, text)| play_announced(text).err().map(|error| format!("{name}.txt:{error}")))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_shipped_product_on_mqtt_has_its_conversation_and_names_its_source() {
    let conversations = texts("tests/products/mqtt", "txt");
    for (name, text) in texts("products", "toml") {
        let head: String = text.lines().take_while(|line| line.starts_with('#')).collect();
        if text.lines().any(|line| !line.starts_with('#') && line.contains("mqtt")) {
            assert!(conversations.contains_key(&name), "tests/products/mqtt/{name}.txt is missing");
            assert!(head.contains("Source:"), "products/{name}.toml names no source");
        }
    }
}

/// The rules that docs/products.md shows, tried on what real devices are documented to say: each conversation makes its own
/// device appear, as what it is, and nothing else.
#[test]
fn devices_appear_by_the_documented_rules_as_what_they_are() {
    let document = fs::read_to_string(root().join("docs/products.md")).expect("it is text");
    let (_, section) = document.split_once("### Devices that appear").expect("the section is there");
    let rules =
        section.split("```toml").nth(1).and_then(|block| block.split("```").next()).expect("the rules");
    let plant = format!(
        "[gateway]\nid = \"gw\"\n[[client]]\nid = \"c\"\nsecret = \"long-enough-secret\"\n[[mqtt]]\nid = \"b\"\n\
         url = \"mqtt://127.0.0.1\"\nversion = \"5\"\n{rules}"
    );
    let config = resolved(plant, None).expect("the rules can be read");
    let broker = config.brokers.into_iter().next().expect("a broker");
    let members = Members { rules: broker.rules, ..Members::default() };
    let mut tried = 0;
    for (name, text) in texts("tests/products/mqtt", "txt") {
        let header = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let (product, topic) = (header("product ").expect("a product"), header("topic ").expect("a topic"));
        if !members.rules.iter().any(|rule| *rule.product.id == *product) {
            continue;
        }
        let (mut state, _) = State::new("b".into(), &config.gateway.id, &members, clock::now());
        state.handle_connected(clock::now());
        let mut found = Vec::new();
        for line in text.lines() {
            let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
            if matches!(sign, "<" | "<r") {
                state.handle_message(&message(rest, sign == "<r"), clock::now());
                found.extend(state.poll_announcement().into_iter().flat_map(|told| told.come));
            }
        }
        let seen: Vec<_> = found.iter().map(|device| (&*device.product.id, &*device.id)).collect();
        assert_eq!(seen, [(product, &*identity::id(&topic.replace('/', "-")))], "{name}.txt");
        tried += 1;
    }
    assert!(tried > 10, "only {tried} conversations were tried");
}

/// A device of the product, as a configuration would have it.
fn config(name: &str, product: &str, topic: &str) -> Result<Config, String> {
    let own = root().join(format!("tests/products/mqtt/{name}.toml"));
    let plant = format!(
        "[gateway]\nid = \"gw\"\n[[mqtt]]\nid = \"b\"\nurl = \"mqtt://127.0.0.1\"\nversion = \"5\"\n[[device]]\n\
         id = \"d-1\"\nproduct = \"{product}\"\nmqtt = \"b\"\ntopic = \"{topic}\"\n[[client]]\nid = \"c\"\n\
         secret = \"long-enough-secret\"\n"
    );
    resolved(plant, fs::read_to_string(own).ok())
}

/// This configuration with the shipped products, and perhaps with another one.
fn resolved(plant: String, own: Option<String>) -> Result<Config, String> {
    let mut sources: Vec<Source> = texts("products", "toml")
        .into_iter()
        .map(|(name, text)| Source { name: format!("products/{name}.toml").into(), text })
        .collect();
    sources.extend(own.map(|text| Source { name: "products/own.toml".into(), text }));
    sources.push(Source { name: "pentad.toml".into(), text: plant });
    let loaded = resolve(&sources).map_err(|problems| format!("0: {problems}"))?;
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    if warnings.is_empty() { Ok(loaded.config) } else { Err(format!("0: {}", warnings.join("\n"))) }
}

/// One device's driver state, and what it said that the file has not named yet.
struct Stage {
    state: State,
    device: Arc<Device>,
    now: Now,
    commands: u64,
    told: VecDeque<String>,
}

fn play(name: &str, text: &str) -> Result<(), String> {
    let header = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let product = header("product ").ok_or("0: no product")?;
    let config = config(name, product, header("topic ").ok_or("0: no topic")?)?;
    let broker = config.brokers.into_iter().next().ok_or("0: no broker")?;
    let device = Arc::clone(&broker.devices[0].device);
    let (now, members) = (clock::now(), Members { devices: broker.devices, ..Members::default() });
    let (state, errors) = State::new(Arc::clone(&broker.settings.id), &config.gateway.id, &members, now);
    assert!(errors.is_empty(), "{errors:?}");
    Stage { state, device, now, commands: 0, told: VecDeque::new() }.play(text)
}

/// A conversation with a device that announces itself at a broker where that is switched on.
fn play_announced(text: &str) -> Result<(), String> {
    let plant = "[gateway]\nid = \"gw\"\n[[mqtt]]\nid = \"b\"\nurl = \"mqtt://127.0.0.1\"\nhomeassistant = true\n[[client]]\n\
                 id = \"c\"\nsecret = \"long-enough-secret\"\n";
    let broker = resolved(plant.to_owned(), None)?.brokers.into_iter().next().ok_or("0: no broker")?;
    let (now, members) = (clock::now(), Members { scheme: broker.scheme, ..Members::default() });
    let (state, _) = State::new("b".into(), &"gw".into(), &members, now);
    // Nobody yet; the first that appears takes its place.
    let device = Arc::clone(&config("", "generic-json", "none")?.devices[0]);
    Stage { state, device, now, commands: 0, told: VecDeque::new() }.play(text)
}

/// What a device that has appeared is, line by line.
fn described(device: &Device) -> Vec<String> {
    let product = &device.product;
    let mut lines = vec![format!("device {} {} ({})", device.id, device.name, product.name)];
    for property in &product.properties {
        let access = match property.access {
            Access::Read => "r",
            Access::Write => "w",
            Access::ReadWrite => "rw",
        };
        let mut line = format!("property {} {} {access}", property.id, property.kind.name());
        let more = [
            property.unit.as_ref().map(|unit| format!(" {unit}")),
            property.range.map(|(low, high)| format!(" {low}..{high}")),
            property.step.map(|step| format!(" step {step}")),
            property.stale_after.map(|time| format!(" stale after {} s", time.as_secs())),
        ];
        line.extend(more.into_iter().flatten());
        if !property.labels.is_empty() {
            let labels: Vec<&str> = property.labels.iter().map(|(_, label)| &**label).collect();
            write!(line, " [{}]", labels.join(", ")).expect("a text takes it");
        }
        lines.push(line);
    }
    lines.extend(product.functions.iter().map(|function| format!("function {}", function.id)));
    lines.extend(product.events.iter().map(|event| format!("event {}", event.id)));
    lines
}

impl Stage {
    fn play(self, text: &str) -> Result<(), String> {
        let mut played = self;
        played.state.handle_connected(played.now);
        while played.state.poll_observation().is_some() {}
        for (at, line) in text.lines().enumerate() {
            played.line(line).map_err(|error| format!("{}: {error}", at + 1))?;
        }
        played.finished()
    }

    /// Time passes until announcements are quiet; who appears is told, and who is no more.
    fn announced(&mut self) {
        self.now.instant += Duration::from_secs(1);
        self.state.handle_timeout(self.now);
        let told = self.state.poll_announcement().unwrap_or_default();
        self.state.handle_announced(&told.come, &vec![Ok(()); told.come.len()], self.now);
        for device in told.come {
            self.told.extend(described(&device));
            self.device = device;
        }
        self.told.extend(told.gone.iter().map(|id| format!("gone {id}")));
    }
}

/// A topic and what is published there.
fn message(text: &str, retain: bool) -> Message {
    let (topic, payload) = text.split_once(' ').unwrap_or((text, ""));
    let payload = payload.as_bytes().to_vec().into();
    Message { topic: topic.into(), payload, retain, ..Message::default() }
}

/// Names and values, in the order of a message.
type UserProperties = Vec<(Arc<str>, Arc<str>)>;

/// Properties of MQTT 5, and the message that they travel with.
fn user_properties(rest: &str) -> Result<(UserProperties, &str), String> {
    let (user, rest) = rest.split_once(' ').ok_or("properties and a message")?;
    let user = members(user)?.into_iter().map(|(name, value)| (name, value.to_string().into()));
    Ok((user.collect(), rest))
}

impl Stage {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
        match sign {
            "" | "#" | "product" | "topic" => return Ok(()),
            ">" | ">r" => {
                let found = self.sent()?;
                return expect(line, &found);
            }
            "=" => {
                self.listen();
                let found = self.told.pop_front().ok_or("the hub is told nothing more")?;
                return expect(rest, &found);
            }
            _ => self.finished()?,
        }
        match sign {
            "<" => self.receive(rest, false, Extra::default()),
            "<r" => self.receive(rest, true, Extra::default()),
            "<c" => {
                let (number, rest) = rest.split_once(' ').ok_or("a number and a message")?;
                let correlation = Some(number.as_bytes().to_vec().into());
                self.receive(rest, false, Extra { correlation, ..Extra::default() });
            }
            "<u" => {
                let (user, rest) = user_properties(rest)?;
                self.receive(rest, false, Extra { user, ..Extra::default() });
            }
            "<cu" => {
                let (number, rest) = rest.split_once(' ').ok_or("a number, properties and a message")?;
                let correlation = Some(number.as_bytes().to_vec().into());
                let (user, rest) = user_properties(rest)?;
                self.receive(rest, false, Extra { correlation, user, ..Extra::default() });
            }
            "!" => self.want(rest)?,
            other => return Err(format!("no line begins with {other}")),
        }
        Ok(())
    }

    fn receive(&mut self, rest: &str, retain: bool, extra: Extra) {
        self.state.handle_message(&Message { extra, ..message(rest, retain) }, self.now);
    }

    fn want(&mut self, rest: &str) -> Result<(), String> {
        if rest == "announced" {
            self.announced();
            return Ok(());
        }
        let (what, rest) = rest.split_once(' ').ok_or("what is wanted?")?;
        let product = Arc::clone(&self.device.product);
        let action = match what {
            "wait" => {
                let time = Duration::from_secs(rest.parse().map_err(|_| "seconds")?);
                self.now.instant += time;
                self.state.handle_timeout(self.now);
                return Ok(());
            }
            "write" => {
                let mut values = Vec::new();
                for (id, value) in members(rest)? {
                    let (at, _) = product.property(&id).ok_or("no such property")?;
                    values.push((at, value));
                }
                DriverAction::Write(values)
            }
            "read" => {
                let place = |id: &str| product.property(id).map(|(at, _)| at).ok_or("no such property");
                DriverAction::Read(rest.split(' ').map(place).collect::<Result<_, _>>()?)
            }
            "invoke" => {
                let (function, inputs) = rest.split_once(' ').unwrap_or((rest, "{}"));
                let (function, _) = product.function(function).ok_or("no such function")?;
                DriverAction::Invoke { function, inputs: members(inputs)? }
            }
            _ => return Err(format!("nobody can want {what}")),
        };
        self.commands += 1;
        let command = DriverCommand {
            id: CommandId(self.commands),
            device: Arc::clone(&self.device),
            action,
            deadline: self.now.instant + Duration::from_secs(10),
            urgent: false,
        };
        self.state.handle_command(&command, self.now);
        Ok(())
    }

    /// The next message to the broker, which it acknowledges at once.
    fn sent(&mut self) -> Result<String, String> {
        let message = self.state.poll_publish().ok_or("nothing is sent")?;
        self.state.handle_acknowledged(message.ticket, self.now);
        let sign = if message.retain { ">r" } else { ">" };
        let shown = format!("{sign} {} {} {}", message.topic, message.qos, message.payload);
        let mut shown = shown.trim_end().to_owned();
        if let Some(topic) = &message.extra.response_topic {
            let number = message.extra.correlation.as_deref().unwrap_or_default();
            write!(shown, " [{topic} {}]", String::from_utf8_lossy(number))
                .map_err(|error| error.to_string())?;
        }
        for (name, value) in &message.extra.user {
            write!(shown, " [{name}={value}]").map_err(|error| error.to_string())?;
        }
        Ok(shown)
    }

    fn listen(&mut self) {
        while let Some(observation) = self.state.poll_observation() {
            self.told.extend(self.show(&observation));
        }
    }

    fn finished(&mut self) -> Result<(), String> {
        self.listen();
        if let Some(told) = self.told.front() {
            return Err(format!("the hub is also told: {told}"));
        }
        self.state.poll_publish().map_or(Ok(()), |message| Err(format!("this is also sent: {message:?}")))
    }

    fn show(&self, observation: &Observation) -> Option<String> {
        Some(match observation {
            Observation::Values { values, .. } => {
                let show = |(at, sample): &(usize, Sample)| {
                    let id = &self.device.product.properties[*at].id;
                    match sample {
                        Sample::Value(value) => format!(" {id}={}", to_json(value)),
                        Sample::Unreadable(_) => format!(" {id}=unreadable"),
                    }
                };
                format!("values{}", values.iter().map(show).collect::<String>())
            }
            Observation::Presence { online, .. } => (if *online { "online" } else { "offline" }).to_owned(),
            Observation::Event { event, params, .. } => format!("event {event} {}", object(params)),
            Observation::Publish { topic, payload, .. } => format!("publish {topic} {payload}"),
            Observation::Ota { step, detail, .. } => format!("ota {step} {detail}").trim_end().to_owned(),
            Observation::Settled { outcome: Outcome::Confirmed { values, outputs }, .. } => {
                let mut shown = format!("confirmed {}", object(values));
                if !outputs.is_empty() {
                    write!(shown, " outputs {}", object(outputs)).expect("a text takes it");
                }
                shown
            }
            Observation::Settled { outcome: Outcome::Rejected(reason), .. } => format!("refused {reason}"),
            Observation::Settled { outcome, .. } => format!("{outcome:?}"),
            Observation::Link { .. } | Observation::Accepted { .. } | Observation::Doubt { .. } => {
                return None;
            }
        })
    }
}

fn expect(expected: &str, found: &str) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("\n  expected: {expected}\n  found:    {found}")) }
}

fn members(text: &str) -> Result<Vec<(Arc<str>, Value)>, String> {
    let json: Json = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let members = json.as_object().ok_or("an object is wanted")?;
    Ok(members.iter().map(|(name, value)| (Arc::from(name.as_str()), from_json(value))).collect())
}

fn object(values: &[(Arc<str>, Value)]) -> Json {
    Json::Object(values.iter().map(|(name, value)| (name.to_string(), to_json(value))).collect())
}
