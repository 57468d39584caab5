//! What was probably meant by a name that nobody knows.
//!
//! Knows words, not what they name.

/// Names that people bring along from other programs, and ours for the same thing.
const SYNONYMS: [(&str, &str); 24] = [
    ("baud", "baud_rate"),
    ("baudrate", "baud_rate"),
    ("bits", "data_bits"),
    ("bytesize", "data_bits"),
    ("broker", "mqtt"),
    ("cert", "certificate"),
    ("description", "name"),
    ("device", "port"),
    ("host", "address"),
    ("interval", "every"),
    ("password", "secret"),
    ("path", "port"),
    ("poll", "every"),
    ("register", "address"),
    ("server", "url"),
    ("slave", "unit"),
    ("slave_id", "unit"),
    ("stopbits", "stop_bits"),
    ("token", "secret"),
    ("tty", "port"),
    ("tz", "timezone"),
    ("unit_id", "unit"),
    ("user", "username"),
    ("kind", "type"),
];

/// Most names that a guess offers: more of them is a list, not a guess.
const OFFERED: usize = 3;

/// The known name that was most probably meant.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    let name = plain(name);
    let synonym = SYNONYMS.iter().find(|(theirs, ours)| *theirs == name && known.contains(ours));
    if let Some((_, ours)) = synonym {
        return known.iter().find(|key| *key == ours).copied();
    }
    let distance = |key: &str| strsim::osa_distance(&name, &plain(key));
    let best = known.iter().copied().min_by_key(|key| (distance(key), key.len().abs_diff(name.len())))?;
    (distance(best) <= 1 + best.len() / 4).then_some(best)
}

/// The question whether a known name was meant: the nearest one, or the few that one word of three letters or more,
/// such as a model's number without its maker, is a part of.
pub(super) fn did_you_mean(name: &str, known: &[&str]) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let parts = || known.iter().copied().filter(|known| lower.len() >= 3 && known.contains(&lower));
    let offered = match nearest(name, known) {
        Some(near) => vec![near],
        None => parts().take(OFFERED + 1).collect(),
    };
    (1..=OFFERED).contains(&offered.len()).then(|| format!("did you mean {}?", offered.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    const PRODUCTS: [&str; 5] = [
        "eastron-sdm120",
        "eastron-sdm630",
        "waveshare-relay-8ch",
        "waveshare-analog-input-8ch",
        "tasmota-plug",
    ];

    #[test]
    fn a_slip_or_a_part_of_a_name_is_guessed_and_what_is_far_from_all_is_not() {
        for (name, guess) in [
            ("eastron_sdm12", Some("did you mean eastron-sdm120?")),
            ("SDM630", Some("did you mean eastron-sdm630?")),
            ("waveshare", Some("did you mean waveshare-relay-8ch or waveshare-analog-input-8ch?")),
            ("8c", None),
            ("siemens-pac", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(name, &PRODUCTS).as_deref(), guess, "{name}");
        }
        assert_eq!(did_you_mean("a-", &["a-1", "a-2", "a-3", "a-4"]).as_deref(), Some("did you mean a-1?"));
        assert_eq!(did_you_mean("slave", &["unit"]).as_deref(), Some("did you mean unit?"));
        assert_eq!(did_you_mean("x", &[]), None);
    }
}
