//! The demo's Modbus line: a pseudo-terminal with three unit addresses, of which two answer.
//!
//! Unit 1 is the meter and unit 2 the press of the plant; unit 9 is wired to nothing. The gateway opens
//! [`Line::path`] with its ordinary serial driver and cannot tell the difference. The frames are made by another
//! Modbus implementation than the driver's own, so that a shared mistake would show.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rmodbus::server::ModbusFrame;
use rmodbus::server::context::ModbusContext;
use rmodbus::server::storage::ModbusStorage;
use rmodbus::{ErrorKind, ModbusProto, guess_request_frame_len};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_serial::{SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::plant::Plant;

/// A request that stops in the middle for so long is forgotten, like the silence that ends a frame on a real line.
const SILENCE: Duration = Duration::from_millis(50);

/// How often the plant moves.
const TICK: Duration = Duration::from_millis(100);

/// The longest RTU frame.
const FRAME: usize = 256;

/// The most bytes of data that a write of many values can carry: 123 registers.
const MOST_DATA: u8 = 246;

const METER: u8 = 1;
const PRESS: u8 = 2;

/// Where the press keeps what; the product of the demo's configuration says the same.
mod press {
    pub(super) const TEMPERATURE_INPUT: u16 = 10;
    pub(super) const STROKES_INPUT: u16 = 11;
    pub(super) const DOOR_DISCRETE: u16 = 0;
    pub(super) const RUNNING_COIL: u16 = 3;
    pub(super) const RESET_COIL: u16 = 9;
    pub(super) const SETPOINT_HOLDING: u16 = 100;
    pub(super) const CODE_HOLDING: u16 = 200;
}

/// The pseudo-terminal could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The system gives none.
    #[error("opening a pseudo-terminal for the demo's serial line")]
    Open(#[source] tokio_serial::Error),
    /// Nobody could open it.
    #[error("the demo's pseudo-terminal has no name")]
    Nameless,
}

/// A line with its units, open on both ends.
#[derive(Debug)]
pub struct Line {
    /// What the driver opens.
    pub path: PathBuf,
    units: Units,
    master: SerialStream,
    /// Keeps the line up while the driver has it closed; the other end would see an error otherwise.
    _slave: SerialStream,
}

impl Line {
    /// Makes the line. Must be called inside the runtime.
    pub fn open(plant: Plant) -> Result<Self, LineError> {
        let (master, slave) = SerialStream::pair().map_err(LineError::Open)?;
        let path = slave.name().ok_or(LineError::Nameless)?.into();
        Ok(Self { path, units: Units::new(plant), master, _slave: slave })
    }

    /// Serves the line until it is told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut received = Vec::new();
        let mut buffer = [0; FRAME];
        let mut ticks = tokio::time::interval(TICK);
        // After a suspended machine the plant moves on once, not in a burst.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let happened = tokio::select! {
                // Cancel-safe: a cancelled token stays cancelled.
                () = stop.cancelled() => return,
                // Cancel-safe by its documentation.
                _ = ticks.tick() => Event::Tick,
                // Cancel-safe by its documentation: nothing is read unless it finishes.
                count = self.master.read(&mut buffer) => Event::Bytes(count),
                // Cancel-safe: a sleep is only begun anew, and a tick comes well after the silence.
                () = tokio::time::sleep(SILENCE), if !received.is_empty() => Event::Silence,
            };
            match happened {
                Event::Tick => self.units.plant.advance(TICK),
                Event::Silence => {
                    debug!(bytes = received.len(), "an unfinished request is forgotten");
                    received.clear();
                }
                Event::Bytes(Ok(count)) => {
                    received.extend(buffer.iter().take(count));
                    for answer in self.units.serve(&mut received) {
                        if let Err(error) = self.master.write_all(&answer).await {
                            warn!(%error, "the demo's serial line cannot answer");
                        }
                    }
                }
                Event::Bytes(Err(error)) => {
                    warn!(%error, "the demo's serial line cannot be read");
                    tokio::time::sleep(SILENCE).await;
                }
            }
        }
    }
}

enum Event {
    Tick,
    Silence,
    Bytes(io::Result<usize>),
}

/// The units of the line, without the line.
#[derive(Debug)]
struct Units {
    plant: Plant,
    meter: Box<ModbusStorage<1, 1, 400, 16>>,
    press: Box<ModbusStorage<16, 8, 32, 256>>,
}

impl Units {
    fn new(plant: Plant) -> Self {
        Self { plant, meter: Box::new(ModbusStorage::new()), press: Box::new(ModbusStorage::new()) }
    }

    /// Answers the whole requests at the front of what was received and takes them out; what can be no request is
    /// thrown away with everything behind it, as a unit waits for silence then.
    fn serve(&mut self, received: &mut Vec<u8>) -> Vec<Vec<u8>> {
        let mut answers = Vec::new();
        while received.len() > 1 {
            let length = match guess_request_frame_len(received, ModbusProto::Rtu) {
                Ok(length) => usize::from(length),
                Err(ErrorKind::OOB) => break,
                Err(_) => received.len(),
            };
            if length > received.len() {
                break;
            }
            let request: Vec<u8> = received.drain(..length).collect();
            match self.answer(&request) {
                Ok(answer) => answers.extend(answer),
                Err(error) => {
                    debug!(?error, "a broken request is passed over");
                    received.clear();
                }
            }
        }
        answers
    }

    /// The answer to one request; nothing when it is for somebody else or for all.
    fn answer(&mut self, request: &[u8]) -> Result<Option<Vec<u8>>, ErrorKind> {
        match request.first() {
            Some(&METER) => {
                self.refresh_meter()?;
                respond(METER, request, self.meter.as_mut())
            }
            Some(&PRESS) => {
                self.refresh_press()?;
                let answer = respond(PRESS, request, self.press.as_mut())?;
                self.obey()?;
                Ok(answer)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Input registers of an Eastron SDM120, each a big-endian 32-bit float.
    fn refresh_meter(&mut self) -> Result<(), ErrorKind> {
        let meter = &self.plant.meter;
        let registers = [
            (0, meter.voltage()),
            (6, meter.current()),
            (12, meter.active_power()),
            (18, meter.apparent_power()),
            (24, meter.reactive_power()),
            (30, meter.power_factor()),
            (36, meter.power_factor().acos().to_degrees()),
            (70, meter.frequency()),
            (72, meter.energy()),
            (74, 0.0),
            (342, meter.energy()),
        ];
        for (register, value) in registers {
            self.meter.set_inputs_from_f32(register, single(value))?;
        }
        Ok(())
    }

    fn refresh_press(&mut self) -> Result<(), ErrorKind> {
        let (press, storage) = (&self.plant.press, &mut self.press);
        storage.set_input(press::TEMPERATURE_INPUT, whole(press.temperature() * 10.0))?;
        storage.set_input(press::STROKES_INPUT, whole(press.strokes()))?;
        storage.set_discrete(press::DOOR_DISCRETE, press.door())?;
        storage.set_coil(press::RUNNING_COIL, press.running())?;
        // Low word first.
        let setpoint = single(press.setpoint()).to_bits();
        storage.set_holdings_from_u32(press::SETPOINT_HOLDING, setpoint.rotate_left(16))
    }

    /// Carries over to the press what a request has written.
    fn obey(&mut self) -> Result<(), ErrorKind> {
        let (press, storage) = (&mut self.plant.press, &mut self.press);
        press.set_running(storage.get_coil(press::RUNNING_COIL)?);
        let setpoint = storage.get_holdings_as_u32(press::SETPOINT_HOLDING)?.rotate_left(16);
        press.set_setpoint(f32::from_bits(setpoint).into());
        if storage.get_coil(press::RESET_COIL)? {
            press.reset(storage.get_holding(press::CODE_HOLDING)?);
            storage.set_coil(press::RESET_COIL, false)?;
        }
        Ok(())
    }
}

/// What a unit does with one request that is for it. The checksum is looked at here because the library answers an
/// unknown function without doing so, and counts over when the function has the bit that marks a failure or the
/// write says that it carries more data than fits a frame.
fn respond<C: ModbusContext>(
    unit: u8,
    request: &[u8],
    storage: &mut C,
) -> Result<Option<Vec<u8>>, ErrorKind> {
    let sound = request.split_last_chunk::<2>().is_some_and(|(body, sum)| crc(body) == *sum);
    if !sound || request.get(1).is_none_or(|function| *function >= 0x80) {
        return Err(ErrorKind::FrameCRCError);
    }
    if matches!(request, [_, 15 | 16, _, _, _, _, data, ..] if *data > MOST_DATA) {
        return Err(ErrorKind::FrameBroken);
    }
    let mut response = Vec::new();
    let mut frame = ModbusFrame::new(unit, request, ModbusProto::Rtu, &mut response);
    frame.parse()?;
    if frame.processing_required {
        if frame.readonly { frame.process_read(storage) } else { frame.process_write(storage) }?;
    }
    if !frame.response_required {
        return Ok(None);
    }
    frame.finalize_response()?;
    Ok(Some(response))
}

/// The checksum of a frame, low byte first, as it travels.
fn crc(frame: &[u8]) -> [u8; 2] {
    let step = |crc: u16| if crc & 1 == 1 { (crc >> 1) ^ 0xA001 } else { crc >> 1 };
    let fold = |crc: u16, byte: &u8| (0..8).fold(crc ^ u16::from(*byte), |crc, _| step(crc));
    frame.iter().fold(0xFFFF, fold).to_le_bytes()
}

#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "the registers hold single precision"
)]
fn single(value: f64) -> f32 {
    value as f32
}

/// A number of the plant in a register; a negative one as two's complement, one too large as the largest.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and the clamp leaves what one register can hold"
)]
fn whole(value: f64) -> u16 {
    value.round().clamp(-32_768.0, 65_535.0) as i32 as u16
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::{Read, Write};
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// Requests and answers as bytes, their checksums computed elsewhere.
    const READ_SETPOINT: [u8; 8] = [0x02, 0x03, 0x00, 0x64, 0x00, 0x02, 0x85, 0xE7];
    const SETPOINT_50: [u8; 9] = [0x02, 0x03, 0x04, 0x00, 0x00, 0x42, 0x48, 0xF9, 0xA5];
    const READ_UNIT_9: [u8; 8] = [0x09, 0x03, 0x00, 0x00, 0x00, 0x01, 0x85, 0x42];
    const READ_BEYOND: [u8; 8] = [0x02, 0x04, 0x03, 0xE8, 0x00, 0x01, 0xB1, 0x89];
    const ILLEGAL_ADDRESS: [u8; 5] = [0x02, 0x84, 0x02, 0x32, 0xC1];

    fn framed(body: &[u8]) -> Vec<u8> {
        [body, &crc(body)].concat()
    }

    fn ask(units: &mut Units, body: &[u8]) -> Vec<u8> {
        units.serve(&mut framed(body)).concat()
    }

    /// The values that a read of registers gives.
    fn registers(units: &mut Units, unit: u8, function: u8, address: u16, count: u16) -> Vec<u16> {
        let [a, b] = address.to_be_bytes();
        let [c, d] = count.to_be_bytes();
        let answer = ask(units, &[unit, function, a, b, c, d]);
        assert_eq!(answer[..2], [unit, function], "{answer:?}");
        answer[3..answer.len() - 2].chunks(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect()
    }

    #[test]
    fn the_meter_answers_like_the_real_one() {
        let mut units = Units::new(Plant::new(1));
        for (address, low, high) in
            [(0, 225.0, 235.0), (12, 100.0, 300.0), (70, 49.9, 50.1), (342, 12.4, 12.6)]
        {
            let words = registers(&mut units, METER, 4, address, 2);
            let value = f32::from_bits(u32::from(words[0]) << 16 | u32::from(words[1]));
            assert!((low..high).contains(&value), "{address}: {value}");
        }
    }

    #[test]
    fn a_written_setpoint_and_coil_reach_the_press() {
        let mut units = Units::new(Plant::new(1));
        // 20.0 as a float, low word first.
        ask(&mut units, &[2, 16, 0, 100, 0, 2, 4, 0x00, 0x00, 0x41, 0xA0]);
        ask(&mut units, &[2, 5, 0, 3, 0, 0]);
        assert!((units.plant.press.setpoint() - 20.0).abs() < f64::EPSILON);
        assert!(!units.plant.press.running());
        assert_eq!(registers(&mut units, PRESS, 3, 100, 2), [0x0000, 0x41A0]);
    }

    #[test]
    fn the_reset_coil_clears_the_counter_and_falls_back() {
        let mut units = Units::new(Plant::new(1));
        units.plant.advance(Duration::from_secs(60));
        assert_eq!(registers(&mut units, PRESS, 4, 11, 1), [30]);
        ask(&mut units, &[2, 6, 0, 200, 0x12, 0x34]);
        ask(&mut units, &[2, 5, 0, 9, 0xFF, 0]);
        assert_eq!(registers(&mut units, PRESS, 4, 11, 1), [0]);
        assert_eq!(units.plant.press.last_code(), 0x1234);
        assert_eq!(ask(&mut units, &[2, 1, 0, 9, 0, 1])[3], 0);
    }

    #[test]
    fn requests_are_answered_in_any_chunks() {
        let mut units = Units::new(Plant::new(1));
        let stream = [READ_SETPOINT, READ_UNIT_9, READ_SETPOINT].concat();
        for size in 1..stream.len() {
            let mut received = Vec::new();
            let mut answers = Vec::new();
            for chunk in stream.chunks(size) {
                received.extend_from_slice(chunk);
                answers.extend(units.serve(&mut received));
            }
            assert_eq!(answers, [SETPOINT_50, SETPOINT_50], "in pieces of {size}");
        }
    }

    #[test]
    fn noise_is_passed_over() {
        let mut units = Units::new(Plant::new(1));
        let mut broken = READ_SETPOINT.to_vec();
        broken[7] ^= 1;
        for noise in [broken, vec![0xFF; 300], vec![0x02, 0x63, 0, 0, 0, 0, 0, 0]] {
            let mut received = noise;
            units.serve(&mut received);
            received.clear();
            assert_eq!(units.serve(&mut READ_SETPOINT.to_vec()), [SETPOINT_50]);
        }
    }

    #[test]
    fn a_write_of_more_data_than_a_frame_holds_is_no_request() {
        let mut units = Units::new(Plant::new(1));
        for function in [15, 16] {
            for bytes in [247, 249, 255] {
                let request = framed(&[METER, function, 0, 0, 0, 0, bytes]);
                assert!(units.answer(&request).is_err(), "function {function} with {bytes} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_units_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4)) {
            let mut units = Units::new(Plant::new(1));
            let mut received = Vec::new();
            for chunk in chunks {
                received.extend(chunk);
                units.serve(&mut received);
            }
            received.clear();
            prop_assert_eq!(units.serve(&mut READ_UNIT_9.to_vec()).len(), 0);
        }

        #[test]
        fn no_sound_request_makes_the_units_panic(unit in 1..=2_u8, body in prop::collection::vec(any::<u8>(), 1..40)) {
            let mut units = Units::new(Plant::new(1));
            let request = framed(&[&[unit], body.as_slice()].concat());
            if let Ok(Some(answer)) = units.answer(&request) {
                prop_assert_eq!(answer[0], unit);
            }
        }

        #[test]
        fn whatever_is_written_the_press_stays_in_its_range(words in any::<[u8; 4]>()) {
            let mut units = Units::new(Plant::new(1));
            ask(&mut units, &[&[2, 16, 0, 100, 0, 2, 4][..], &words].concat());
            prop_assert!((0.0..=100.0).contains(&units.plant.press.setpoint()));
        }
    }

    #[test]
    fn a_negative_temperature_is_twos_complement() {
        assert_eq!(whole(-12.4), 65_524);
        assert_eq!(whole(1e12), 65_535);
        assert_eq!(whole(f64::NAN), 0);
    }

    fn open(path: &Path) -> File {
        OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    fn exchange(port: &mut File, request: &[u8], expected: &[u8]) {
        port.write_all(request).unwrap();
        let mut answer = vec![0; expected.len()];
        port.read_exact(&mut answer).unwrap();
        assert_eq!(answer, expected, "to {request:02x?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn requests_through_the_terminal_get_the_right_bytes_also_after_a_reopen() {
        let line = Line::open(Plant::new(1)).unwrap();
        let path = line.path.clone();
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(line.run(stop.clone()));
        let client = tokio::task::spawn_blocking(move || {
            let mut port = open(&path);
            exchange(&mut port, &READ_SETPOINT, &SETPOINT_50);
            // Nothing comes from unit 9, so the next bytes are the next answer.
            port.write_all(&READ_UNIT_9).unwrap();
            exchange(&mut port, &READ_BEYOND, &ILLEGAL_ADDRESS);
            drop(port);
            exchange(&mut open(&path), &READ_SETPOINT, &SETPOINT_50);
        });
        tokio::time::timeout(Duration::from_secs(10), client).await.unwrap().unwrap();
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap();
    }
}
