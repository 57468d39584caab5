//! What the recorder holds, as Wireshark's own tshark reads it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pentad::clock;
use pentad::drivers::modbus::{BusSettings, SerialFraming, SerialSettings, Target, TcpFraming};
use pentad::model::value::Value;

use crate::rig::{PATIENCE, Rig, TIMEOUT, device, holding, serial};
use crate::slave::{Deed, Line, Server, World, exception, read_answer, rtu};

/// The lines that tshark prints for a recording, one for each frame, or the whole tree.
fn tshark(rig: &Rig, folder: &Path, options: &[&str]) -> String {
    let file = folder.join("bus.pcapng");
    std::fs::write(&file, rig.recorder.pcapng(clock::now())).unwrap();
    let output = Command::new("tshark").arg("-r").arg(&file).args(options).output();
    let output = output.expect("tshark is installed (Debian package tshark; tests/run installs it)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_bus_opens_in_wireshark_with_its_faults() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[4711]);
    let mut turn = 0;
    world.script(move |asked| {
        turn += 1;
        match turn {
            2 => Some(Vec::new()),
            3 => Some(vec![Deed::Send(rtu(&exception(asked, 6)))]),
            // While the bus listens on after its timeout, for 100 ms at most. More than once: on a busy machine an answer
            // that is a little late may come a little too late.
            late if late > 3 && late % 3 == 1 => {
                let wait = TIMEOUT + Duration::from_millis(40);
                Some(vec![Deed::Wait(wait), Deed::Send(rtu(&read_answer(asked, &[4711])))])
            }
            _ => None,
        }
    });
    let line = Line::plug(&world, &folder.path().join("port"));
    let mut rig = Rig::start(serial(&line.path), vec![device(1, vec![holding(10, 50)], vec![])]);
    rig.value(1, 0, Value::Int(4711)).await;
    let late = b"came after the timeout";
    let recorded = async {
        while !rig.recorder.pcapng(clock::now()).windows(late.len()).any(|window| window == late) {
            rig.watch(TIMEOUT / 4).await;
        }
    };
    tokio::time::timeout(PATIENCE, recorded).await.expect("a late answer is recorded as one");
    rig.stop().await;
    let lines = tshark(&rig, folder.path(), &[]);
    assert!(lines.lines().all(|line| line.contains("Modbus RTU")), "{lines}");
    assert!(lines.contains("Query: Unit:   1, Func:   3: Read Holding Registers"), "{lines}");
    assert!(lines.contains("Response: Unit:   1, Func:   3: Read Holding Registers"), "{lines}");
    assert!(lines.contains("Exception returned"), "{lines}");
    let tree = tshark(&rig, folder.path(), &["-V"]);
    for words in
        ["Register Value (UINT16): 4711", "no answer", "came after the timeout", "Interface name: bus"]
    {
        assert!(tree.contains(words), "{words} is missing in {tree}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ascii_and_tcp_open_there_too() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::default();
    world.set(1, 10, &[4711]);
    let line = Line::plug_ascii(&world, &folder.path().join("port"));
    let mut settings = SerialSettings::at(line.path.to_str().unwrap(), 115_200);
    settings.framing = SerialFraming::Ascii;
    let server = Server::start(&world, "127.0.0.1:0").await;
    let tcp = Target::Tcp {
        address: server.address.to_string().into(),
        socket: Some(server.address),
        framing: TcpFraming::Tcp,
    };
    for (target, words) in [(Target::Serial(settings), "Modbus RTU"), (tcp, "Modbus/TCP")] {
        let settings = BusSettings {
            id: "bus".into(),
            target,
            timeout: TIMEOUT,
            pause: Duration::ZERO,
            pause_after_connect: Duration::ZERO,
        };
        let mut rig = Rig::start_as(settings, vec![device(1, vec![holding(10, 50)], vec![])]);
        rig.value(1, 0, Value::Int(4711)).await;
        rig.stop().await;
        let lines = tshark(&rig, folder.path(), &[]);
        assert!(lines.contains(words) && lines.contains("Response"), "{lines}");
        assert!(tshark(&rig, folder.path(), &["-V"]).contains("Register Value (UINT16): 4711"));
    }
}
