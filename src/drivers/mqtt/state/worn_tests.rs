//! Tests of writes of what wears out.

use super::*;

/// A bed whose level may be written once in ten seconds.
fn worn() -> Bed {
    let interval = Some(Duration::from_secs(10));
    Bed::connected(|map| map.properties[LEVEL].as_mut().unwrap().write_interval = interval)
}

impl Bed {
    /// Sends and acknowledges everything. Gives the payloads.
    fn send_all(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        while let Some(message) = self.state.poll_publish() {
            self.state.handle_acknowledged(message.ticket, self.now);
            sent.push(message.payload);
        }
        sent
    }

    fn patient_write(&mut self, values: &[(usize, Value)]) -> CommandId {
        self.order(values, false)
    }

    fn order(&mut self, values: &[(usize, Value)], urgent: bool) -> CommandId {
        self.next += 1;
        let id = CommandId(self.next);
        let (device, deadline) = (Arc::clone(&self.device), self.now.instant + Duration::from_secs(60));
        let action = DriverAction::Write(values.to_vec());
        let command = DriverCommand { id, device, action, deadline, urgent };
        self.state.handle_command(&command, self.now);
        id
    }

    fn settled(&mut self) -> BTreeMap<CommandId, Outcome> {
        let outcome = |seen| {
            let Observation::Settled { command, outcome, .. } = seen else { return None };
            Some((command, outcome))
        };
        self.seen().into_iter().filter_map(outcome).collect()
    }
}

#[test]
fn what_wears_out_is_published_no_more_often_than_it_may() {
    let mut bed = worn();
    bed.write(&[(LEVEL, Value::Int(1))]);
    assert_eq!(bed.send_all(), ["1"]);
    let first = bed.patient_write(&[(LEVEL, Value::Int(2))]);
    bed.wait(Duration::from_secs(1));
    let last = bed.patient_write(&[(LEVEL, Value::Int(3))]);
    let hasty = bed.write(&[(LEVEL, Value::Int(4))]);
    let outcomes = bed.settled();
    assert_eq!(outcomes[&first], Outcome::Rejected(Rejection::Superseded("level".into())));
    let (every, wait) = (Duration::from_secs(10), Duration::from_secs(9));
    assert_eq!(outcomes[&hasty], Outcome::Rejected(Rejection::TooSoon { id: "level".into(), every, wait }));
    bed.wait(Duration::from_millis(8999));
    assert_eq!(bed.send_all(), [""; 0]);
    bed.wait(Duration::from_millis(1));
    assert_eq!(bed.send_all(), ["3"]);
    assert!(matches!(bed.settled()[&last], Outcome::Confirmed { .. }));
}

#[test]
fn a_safe_value_does_not_wait_for_what_wears_out() {
    let mut bed = worn();
    bed.write(&[(LEVEL, Value::Int(1))]);
    bed.send_all();
    bed.order(&[(LEVEL, Value::Int(0))], true);
    assert_eq!(bed.send_all(), ["0"]);
    bed.patient_write(&[(LEVEL, Value::Int(2))]);
    assert_eq!(bed.send_all(), [""; 0], "but it counts");
}

#[test]
fn a_write_that_waits_is_not_sent_when_the_broker_is_lost() {
    let mut bed = worn();
    bed.write(&[(LEVEL, Value::Int(1))]);
    bed.send_all();
    let waiting = bed.patient_write(&[(LEVEL, Value::Int(2))]);
    bed.lose();
    assert_eq!(bed.settled()[&waiting], Outcome::Offline);
    bed.state.handle_connected(bed.now);
    bed.wait(Duration::from_secs(60));
    assert_eq!(bed.send_all(), [""; 0]);
}

#[test]
fn a_call_that_writes_what_wears_out_counts_as_a_write_of_it() {
    for (topic, payload, counts) in [
        ("{topic}/level/set", r#"{"level":{value}}"#, true),
        ("{topic}/level/set", r#"{"mode":7}"#, false),
        ("{topic}/reset", r#"{"level":{value}}"#, false),
    ] {
        let mut bed = Bed::connected(|map| {
            let level = map.properties[LEVEL].as_mut().unwrap();
            level.write_interval = Some(Duration::from_secs(10));
            level.write.as_mut().unwrap().payload = r#"{"level" : {value}}"#.into();
            let call = &mut map.functions[0].as_mut().unwrap().publish;
            (call.topic, call.payload) = (topic.into(), payload.into());
        });
        bed.command(DriverAction::Invoke { function: 0, inputs: vec![] });
        bed.send_all();
        let write = bed.write(&[(LEVEL, Value::Int(1))]);
        bed.send_all();
        let too_soon = matches!(bed.settled()[&write], Outcome::Rejected(Rejection::TooSoon { .. }));
        assert_eq!(too_soon, counts, "{topic} {payload}");
    }
}
