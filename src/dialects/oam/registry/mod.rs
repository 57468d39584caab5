//! What clients decide about sampling: profiles, rules, and which profiles a node has.
//!
//! All of it is one document in the hub, so that a change is one step: names stay unique and references whole
//! however many clients change something at once.
//!
//! A *profile* names metrics and a rate. It holds for a stream when it is set on the stream's node and has no rules, or
//! when one of its rules fits the stream. The *rate* counts as the vendor's, where a stream has thirty frames a second:
//! each metric of a profile is sampled once in `rate / 30` seconds, and the metrics of a profile take turns. One metric
//! at 30 makes a sample each second, four at 600 make one each five seconds. Where several profiles name a metric, the
//! fastest counts. The streams of a node without profiles are not sampled but told as they change.

use std::time::Duration;

use serde_json::Value as Json;
use wildmatch::WildMatch;

use super::api::Reply;
use super::wire as answers;
use super::{catalogue, fields};
use crate::model::client::Client;
use crate::model::device::Device;
use crate::model::directory::Directory;

mod wire;

pub(super) use wire::Registry;
use wire::{Node, Profile, Rule, RuleKind};

/// The collection that holds the document.
pub(super) const COLLECTION: &str = "oam/registry";

/// The collection of documents that could not be read, before others took their place.
pub(super) const SET_ASIDE: &str = "oam/registry/damaged";

/// Profiles, and as many rules. When full a further one is not stored.
const ENTRIES: usize = 256;

/// Profiles of one client among them, and as many rules, so that none takes all. When full a further one of this client
/// is not stored.
const OF_ONE_CLIENT: usize = 64;

/// Frames of the vendor's streams in a second, which rates count.
const FRAMES: u64 = 30;

/// A metric of a stream that is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Position in the product's properties.
    pub property: usize,
    /// From one sample to the next.
    pub period: Duration,
    /// How long after the beginning the first sample is taken.
    pub phase: Duration,
}

/// The calls that need the registry and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegistryCall {
    ProfileCreate,
    ProfileUpdate,
    ProfileDelete,
    ProfileList,
    RuleCreate,
    RuleUpdate,
    RuleDelete,
    RuleList,
    NodeUpdate,
    NodeDelete,
    NodeList,
}

impl RegistryCall {
    /// By the realm of the call.
    pub(super) fn named(path: &str) -> Option<Self> {
        Some(match path {
            "/api/profile/create" => Self::ProfileCreate,
            "/api/profile/update" => Self::ProfileUpdate,
            "/api/profile/delete" => Self::ProfileDelete,
            "/api/profile/list" => Self::ProfileList,
            "/api/rule/create" => Self::RuleCreate,
            "/api/rule/update" => Self::RuleUpdate,
            "/api/rule/delete" => Self::RuleDelete,
            "/api/rule/list" => Self::RuleList,
            "/api/node/update" => Self::NodeUpdate,
            "/api/node/delete" => Self::NodeDelete,
            "/api/node/list" => Self::NodeList,
            _ => return None,
        })
    }

    /// Whether it needs the right to write.
    pub(super) fn changes(self) -> bool {
        !matches!(self, Self::ProfileList | Self::RuleList | Self::NodeList)
    }
}

/// Whose call it is, and what there is to refer to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub directory: &'a Directory,
    pub client: &'a Client,
}

impl Scope<'_> {
    /// Whether the client sees every device on a link.
    fn sees_all_on(self, link: &str) -> bool {
        let mut on_link = self.directory.devices().iter().filter(|device| &*device.link == link);
        on_link.all(|device| self.client.sees(device))
    }
}

impl Registry {
    /// Carries a call out. After a failure this registry is to be thrown away. Whoever changes what is sampled on a node must
    /// see every device on it, whether the change is one of the node, of a profile that is set on it or of a rule of such a
    /// profile.
    pub(super) fn run(
        &mut self,
        call: RegistryCall,
        payload: &Json,
        scope: Scope<'_>,
    ) -> Result<Reply, Reply> {
        let before = self.clone();
        let reply = self.carry_out(call, payload, scope)?;
        let links = before.nodes.iter().chain(&self.nodes).map(|node| &*node.link);
        let mut changed = links.filter(|link| before.sampling(link) != self.sampling(link));
        if changed.any(|link| !scope.sees_all_on(link)) {
            return Err(Reply::forbidden());
        }
        Ok(reply)
    }

    /// Every profile of a node, each with its rules.
    fn sampling<'a>(&'a self, link: &'a str) -> Vec<(&'a Profile, Vec<&'a Rule>)> {
        let rules = |profile: &'a Profile| self.rules.iter().filter(|rule| profile.rules.contains(&rule.id));
        self.profiles_of(link).map(|profile| (profile, rules(profile).collect())).collect()
    }

    fn carry_out(&mut self, call: RegistryCall, payload: &Json, scope: Scope<'_>) -> Result<Reply, Reply> {
        match call {
            RegistryCall::ProfileCreate => self.set_profile(None, payload, scope),
            RegistryCall::ProfileUpdate => self.set_profile(Some(self.profile_at(payload)?), payload, scope),
            RegistryCall::ProfileDelete => {
                let Profile { id, .. } = self.profiles.remove(self.profile_at(payload)?);
                for node in &mut self.nodes {
                    node.profiles.retain(|profile| *profile != id);
                }
                Ok(Reply::done())
            }
            RegistryCall::ProfileList => self.list_profiles(payload, scope),
            RegistryCall::RuleCreate => self.set_rule(None, payload, scope),
            RegistryCall::RuleUpdate => self.set_rule(Some(self.rule_at(payload)?), payload, scope),
            RegistryCall::RuleDelete => {
                let Rule { id, .. } = self.rules.remove(self.rule_at(payload)?);
                for profile in &mut self.profiles {
                    profile.rules.retain(|rule| *rule != id);
                }
                Ok(Reply::done())
            }
            RegistryCall::RuleList => self.list_rules(payload),
            RegistryCall::NodeUpdate => self.set_node(payload, scope),
            RegistryCall::NodeDelete => {
                let link = node_to_change(payload, scope)?;
                self.nodes.retain(|node| node.link != link);
                Ok(Reply::done())
            }
            RegistryCall::NodeList => self.list_nodes(payload, scope),
        }
    }

    /// What of a stream is sampled; `None` when its node has no profile.
    pub(super) fn plan(&self, device: &Device) -> Option<Vec<Turn>> {
        let profiles: Vec<&Profile> = self.profiles_of(&device.link).collect();
        if profiles.is_empty() {
            return None;
        }
        let mut turns: Vec<Turn> = Vec::new();
        for profile in profiles.into_iter().filter(|profile| self.fits(profile, device)) {
            let period = Duration::from_millis(profile.rate.saturating_mul(1000) / FRAMES);
            let of_device = |metric: &String| {
                let properties = &device.product.properties;
                properties.iter().position(|property| catalogue::enum_name(&property.id) == *metric)
            };
            let properties: Vec<usize> = profile.metrics.iter().filter_map(of_device).collect();
            let many = u32::try_from(properties.len()).unwrap_or(u32::MAX).max(1);
            for (place, property) in (0_u32..).zip(properties) {
                let turn = Turn { property, period, phase: (period / many).saturating_mul(place) };
                match turns.iter_mut().find(|known| known.property == property) {
                    Some(known) if known.period <= period => {}
                    Some(known) => *known = turn,
                    None => turns.push(turn),
                }
            }
        }
        Some(turns)
    }

    /// The fastest rate on a node; zero without a profile.
    pub(super) fn rate(&self, link: &str) -> u64 {
        self.profiles_of(link).map(|profile| profile.rate).min().unwrap_or(0)
    }

    fn profiles_of<'a>(&'a self, link: &'a str) -> impl Iterator<Item = &'a Profile> {
        self.profiles.iter().filter(move |profile| self.set_on(link).contains(&profile.id))
    }

    /// Ids of the profiles that are set on a node.
    fn set_on(&self, link: &str) -> &[u64] {
        self.nodes.iter().find(|node| node.link == link).map_or(&[], |node| &node.profiles)
    }

    fn fits(&self, profile: &Profile, device: &Device) -> bool {
        let mut rules = self.rules.iter().filter(|rule| profile.rules.contains(&rule.id));
        let fits = |rule: &Rule| {
            let against = match rule.kind {
                RuleKind::Name => &device.name,
                RuleKind::MediaId => &device.id,
            };
            WildMatch::new(&rule.value).matches(against)
        };
        profile.rules.is_empty() || rules.any(fits)
    }

    fn profile_at(&self, payload: &Json) -> Result<usize, Reply> {
        let id = fields::text(payload, "id").ok_or_else(|| Reply::not_found(400))?;
        self.profiles
            .iter()
            .position(|profile| profile.id.to_string() == id)
            .ok_or_else(|| Reply::not_found(400))
    }

    fn rule_at(&self, payload: &Json) -> Result<usize, Reply> {
        let id = fields::text(payload, "id").ok_or_else(|| Reply::not_found(400))?;
        self.rules.iter().position(|rule| rule.id.to_string() == id).ok_or_else(|| Reply::not_found(400))
    }

    /// Creates a profile, or changes the fields of one that the request names.
    fn set_profile(&mut self, at: Option<usize>, payload: &Json, scope: Scope<'_>) -> Result<Reply, Reply> {
        let old = at.and_then(|at| self.profiles.get(at));
        let name = or_kept(fields::kept_text(payload, "name")?, old.map(|old| &old.name))?;
        let rate = or_kept(fields::number(payload, "rate")?, old.map(|old| &old.rate))?;
        let metrics = match fields::list(payload, "metrics")? {
            Some(asked) => metric_names(&asked, scope)?,
            None => old.map(|old| old.metrics.clone()).unwrap_or_default(),
        };
        let rules = match fields::list(payload, "rules")? {
            Some(asked) => known_ids(&asked, self.rules.iter().map(|rule| rule.id))?,
            None => old.map(|old| old.rules.clone()).unwrap_or_default(),
        };
        let id = old.map(|old| old.id);
        if rate == 0 {
            return Err(Reply::bad_request());
        }
        if self.profiles.iter().any(|other| Some(other.id) != id && other.name == name) {
            return Err(Reply::not_stored());
        }
        if let Some(known) = at.and_then(|at| self.profiles.get_mut(at)) {
            let owner = std::mem::take(&mut known.owner);
            *known = Profile { id: known.id, owner, name, rate, metrics, rules };
        } else if has_room(&self.profiles, |profile| &profile.owner, scope) {
            self.last_profile += 1;
            let (id, owner) = (self.last_profile, scope.client.id.to_string());
            self.profiles.push(Profile { id, owner, name, rate, metrics, rules });
        } else {
            return Err(Reply::not_stored());
        }
        Ok(Reply::done())
    }

    /// Creates a rule, or changes the fields of one that the request names.
    fn set_rule(&mut self, at: Option<usize>, payload: &Json, scope: Scope<'_>) -> Result<Reply, Reply> {
        let old = at.and_then(|at| self.rules.get(at));
        let name = or_kept(fields::kept_text(payload, "name")?, old.map(|old| &old.name))?;
        let value = or_kept(fields::kept_text(payload, "value")?, old.map(|old| &old.value))?;
        let kind = match fields::text(payload, "type").as_deref() {
            Some("0") => RuleKind::Name,
            Some("1") => RuleKind::MediaId,
            Some(_) => return Err(Reply::bad_request()),
            None => old.map(|old| old.kind).ok_or_else(Reply::bad_request)?,
        };
        let profiles = match fields::list(payload, "profiles")? {
            Some(asked) => Some(known_ids(&asked, self.profiles.iter().map(|profile| profile.id))?),
            None => None,
        };
        let known = old.map(|old| old.id);
        if self.rules.iter().any(|other| Some(other.id) != known && other.name == name) {
            return Err(Reply::not_stored());
        }
        let id = if let Some(rule) = at.and_then(|at| self.rules.get_mut(at)) {
            let owner = std::mem::take(&mut rule.owner);
            *rule = Rule { id: rule.id, owner, kind, name, value };
            rule.id
        } else if has_room(&self.rules, |rule| &rule.owner, scope) {
            self.last_rule += 1;
            let (id, owner) = (self.last_rule, scope.client.id.to_string());
            self.rules.push(Rule { id, owner, kind, name, value });
            self.last_rule
        } else {
            return Err(Reply::not_stored());
        };
        for profile in self.profiles.iter_mut().filter(|_| profiles.is_some()) {
            let wanted = profiles.as_ref().is_some_and(|wanted| wanted.contains(&profile.id));
            if !wanted {
                profile.rules.retain(|rule| *rule != id);
            } else if !profile.rules.contains(&id) {
                profile.rules.push(id);
            }
        }
        Ok(Reply::done())
    }

    fn set_node(&mut self, payload: &Json, scope: Scope<'_>) -> Result<Reply, Reply> {
        let link = node_to_change(payload, scope)?;
        let Some(asked) = fields::list(payload, "profiles")? else { return Ok(Reply::done()) };
        let profiles = known_ids(&asked, self.profiles.iter().map(|profile| profile.id))?;
        self.nodes.retain(|node| node.link != link);
        if !profiles.is_empty() {
            self.nodes.push(Node { link, profiles });
        }
        Ok(Reply::done())
    }

    fn list_profiles(&self, payload: &Json, scope: Scope<'_>) -> Result<Reply, Reply> {
        let chosen = fields::text(payload, "id").map(|_| self.profile_at(payload)).transpose()?;
        let shown =
            self.profiles.iter().enumerate().filter(|(at, _)| chosen.is_none_or(|chosen| chosen == *at));
        let render = |(_, profile): (usize, &Profile)| {
            let metrics =
                profile.metrics.iter().filter_map(|name| catalogue::metric_id(scope.directory, name));
            let metrics: Vec<u64> = metrics.collect();
            answers::profile(profile.id, &profile.name, profile.rate, &metrics, &profile.rules)
        };
        Ok(Reply::success(shown.map(render).collect()))
    }

    fn list_rules(&self, payload: &Json) -> Result<Reply, Reply> {
        let chosen = fields::text(payload, "id").map(|_| self.rule_at(payload)).transpose()?;
        let of_profile = match fields::text(payload, "profile") {
            Some(id) => {
                let profile = self.profiles.iter().find(|profile| profile.id.to_string() == id);
                Some(&profile.ok_or_else(|| Reply::not_found(400))?.rules)
            }
            None => None,
        };
        let shown = self.rules.iter().enumerate().filter(|(at, rule)| {
            chosen.is_none_or(|chosen| chosen == *at)
                && of_profile.is_none_or(|rules| rules.contains(&rule.id))
        });
        let render = |(_, rule): (usize, &Rule)| {
            let profiles = self.profiles.iter().filter(|profile| profile.rules.contains(&rule.id));
            let profiles: Vec<u64> = profiles.map(|profile| profile.id).collect();
            let kind = match rule.kind {
                RuleKind::Name => 0,
                RuleKind::MediaId => 1,
            };
            answers::rule(rule.id, kind, &rule.name, &rule.value, &profiles)
        };
        Ok(Reply::success(shown.map(render).collect()))
    }

    fn list_nodes(&self, payload: &Json, scope: Scope<'_>) -> Result<Reply, Reply> {
        let id = fields::text(payload, "id");
        let Scope { directory, client } = scope;
        let nodes = catalogue::nodes(directory, client);
        let meant = nodes
            .iter()
            .filter(|node| id.as_ref().is_none_or(|id| catalogue::means_node(id, directory, &node.link.id)));
        let found: Vec<Json> = meant.map(|node| answers::node(node, self.set_on(&node.link.id))).collect();
        if found.is_empty() && id.is_some() { Err(Reply::not_found(404)) } else { Ok(Reply::success(found)) }
    }
}

/// Whether one more of this client fits beside these.
fn has_room<T>(entries: &[T], owner: impl Fn(&T) -> &str, scope: Scope<'_>) -> bool {
    let own = entries.iter().filter(|entry| *owner(entry) == *scope.client.id).count();
    entries.len() < ENTRIES && own < OF_ONE_CLIENT
}

/// What the request says, or what was there before; one of the two must be.
fn or_kept<T: Clone>(said: Option<T>, kept: Option<&T>) -> Result<T, Reply> {
    said.or_else(|| kept.cloned()).ok_or_else(Reply::bad_request)
}

/// The metrics that a request names by number or name, each once.
fn metric_names(asked: &[String], scope: Scope<'_>) -> Result<Vec<String>, Reply> {
    let metrics = catalogue::metrics(scope.directory, scope.client);
    let mut names: Vec<String> = Vec::new();
    for id in asked {
        let found = metrics.iter().find(|entry| entry.means(id)).ok_or_else(|| Reply::not_found(400))?;
        if !names.contains(&found.enum_name) {
            names.push(found.enum_name.clone());
        }
    }
    Ok(names)
}

/// The numbers of these ids, each once.
fn known_ids(asked: &[String], known: impl Iterator<Item = u64>) -> Result<Vec<u64>, Reply> {
    let known: Vec<u64> = known.collect();
    let mut ids: Vec<u64> = Vec::new();
    for id in asked {
        let id = id.parse().ok().filter(|id| known.contains(id)).ok_or_else(|| Reply::not_found(400))?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The link of the node that a request is to change. Whoever changes one must see every device on it.
fn node_to_change(payload: &Json, scope: Scope<'_>) -> Result<String, Reply> {
    let Scope { directory, client } = scope;
    let id = fields::text(payload, "id").ok_or_else(|| Reply::not_found(404))?;
    let nodes = catalogue::nodes(directory, client);
    let node = nodes.iter().find(|node| catalogue::means_node(&id, directory, &node.link.id));
    let link = &node.ok_or_else(|| Reply::not_found(404))?.link.id;
    if !scope.sees_all_on(link) {
        return Err(Reply::forbidden());
    }
    Ok(link.to_string())
}
