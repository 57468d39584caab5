//! The registry's document as text: JSON that only this program reads, kept by the hub.

use serde::{Deserialize, Serialize};
use tracing::warn;

/// Everything that clients have decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::dialects::oam) struct Registry {
    /// The last ids that were given: none is given twice.
    pub(super) last_profile: u64,
    pub(super) last_rule: u64,
    pub(super) profiles: Vec<Profile>,
    pub(super) rules: Vec<Rule>,
    pub(super) nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dialects::oam) struct Profile {
    pub(super) id: u64,
    /// Id of the client that created it; empty where an older version did not note it.
    #[serde(default)]
    pub(super) owner: String,
    pub(super) name: String,
    pub(super) rate: u64,
    /// By their names, which outlive a change of the configuration.
    pub(super) metrics: Vec<String>,
    pub(super) rules: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dialects::oam) struct Rule {
    pub(super) id: u64,
    /// As in a profile.
    #[serde(default)]
    pub(super) owner: String,
    pub(super) kind: RuleKind,
    pub(super) name: String,
    pub(super) value: String,
}

/// What a rule's template is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dialects::oam) enum RuleKind {
    /// The stream's name.
    Name,
    /// The stream's mediaId.
    MediaId,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dialects::oam) struct Node {
    pub(super) link: String,
    pub(super) profiles: Vec<u64>,
}

impl Registry {
    /// From the document's text. One that cannot be read is as good as none, and is said so.
    pub(in crate::dialects::oam) fn parse(body: Option<&str>) -> Self {
        let Some(body) = body else { return Self::default() };
        serde_json::from_str(body).unwrap_or_else(|error| {
            warn!(%error, "the stored profiles and rules cannot be read, there are none");
            Self::default()
        })
    }

    /// Whether a document is there and cannot be read.
    pub(in crate::dialects::oam) fn is_damaged(body: Option<&str>) -> bool {
        body.is_some_and(|body| serde_json::from_str::<Self>(body).is_err())
    }

    /// As the document's text.
    pub(in crate::dialects::oam) fn to_text(&self) -> String {
        // Only text, numbers and lists of them, so writing cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}
