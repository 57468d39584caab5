//! A household meter and a hydraulic press, simulated.
//!
//! Pure and seeded: the same seed and the same steps give the same plant. It knows physics, not registers, and is
//! told how much time has passed. Things happen often enough for somebody who watches for a minute: an appliance
//! goes on, the press gets too hot and cools down again, its door opens.

use std::time::Duration;

/// Longest step that the simulation takes at once; a longer time is cut into such steps.
const STEP: f64 = 0.5;

/// Everything that the demo measures.
#[derive(Clone, Debug)]
pub struct Plant {
    /// The meter.
    pub meter: Meter,
    /// The press.
    pub press: Press,
}

impl Plant {
    /// A plant as it is when the demo starts.
    pub fn new(seed: u64) -> Self {
        Self { meter: Meter::new(fastrand::Rng::with_seed(seed)), press: Press::new() }
    }

    /// Lets time pass.
    pub fn advance(&mut self, time: Duration) {
        let mut left = time.as_secs_f64();
        while left > 0.0 {
            let step = left.min(STEP);
            self.press.advance(step);
            self.meter.advance(step, self.press.power());
            left -= step;
        }
    }
}

/// What a single-phase meter of a small workshop shows.
#[derive(Clone, Debug)]
pub struct Meter {
    random: fastrand::Rng,
    grid: f64,
    frequency: f64,
    power: f64,
    energy: f64,
    age: f64,
    kettle_until: f64,
    kettle_next: f64,
}

impl Meter {
    /// Load that is always there.
    const BASE_W: f64 = 140.0;
    /// The fridge's compressor, and how long it is on and in all.
    const FRIDGE_W: f64 = 95.0;
    const FRIDGE_ON_S: f64 = 40.0;
    const FRIDGE_CYCLE_S: f64 = 110.0;
    const KETTLE_W: f64 = 1950.0;
    /// How much the voltage drops under a load of one watt.
    const DROP_V_PER_W: f64 = 0.0015;

    fn new(random: fastrand::Rng) -> Self {
        Self {
            random,
            grid: 231.0,
            frequency: 50.0,
            power: Self::BASE_W,
            energy: 12.5,
            age: 0.0,
            kettle_until: 0.0,
            kettle_next: 20.0,
        }
    }

    /// Volts.
    pub fn voltage(&self) -> f64 {
        self.grid - Self::DROP_V_PER_W * self.power
    }

    /// Amperes.
    pub fn current(&self) -> f64 {
        self.apparent_power() / self.voltage()
    }

    /// Watts.
    pub fn active_power(&self) -> f64 {
        self.power
    }

    /// Volt-amperes.
    pub fn apparent_power(&self) -> f64 {
        self.power / self.power_factor()
    }

    /// Volt-amperes reactive.
    pub fn reactive_power(&self) -> f64 {
        let (apparent, active) = (self.apparent_power(), self.power);
        (apparent * apparent - active * active).max(0.0).sqrt()
    }

    /// Nearly 1 when a heater dominates, less with motors alone.
    pub fn power_factor(&self) -> f64 {
        if self.power > 1000.0 { 0.99 } else { 0.92 }
    }

    /// Hertz.
    pub fn frequency(&self) -> f64 {
        self.frequency
    }

    /// Kilowatt-hours since the meter was installed; never falls.
    pub fn energy(&self) -> f64 {
        self.energy
    }

    fn advance(&mut self, seconds: f64, press_w: f64) {
        self.age += seconds;
        self.grid = self.wander(self.grid, 231.0, 0.35, seconds);
        self.frequency = self.wander(self.frequency, 50.0, 0.008, seconds);
        if self.age >= self.kettle_next {
            self.kettle_until = self.age + 12.0 + 10.0 * self.random.f64();
            self.kettle_next = self.kettle_until + 40.0 + 40.0 * self.random.f64();
        }
        let fridge_on = self.age % Self::FRIDGE_CYCLE_S < Self::FRIDGE_ON_S;
        let fridge_w = if fridge_on { Self::FRIDGE_W } else { 0.0 };
        let kettle_w = if self.age < self.kettle_until { Self::KETTLE_W } else { 0.0 };
        let flicker_w = 6.0 * (self.random.f64() - 0.5);
        self.power = Self::BASE_W + fridge_w + kettle_w + press_w + flicker_w;
        self.energy += self.power * seconds / 3_600_000.0;
    }

    /// A random walk that a spring pulls back to its middle.
    fn wander(&mut self, value: f64, middle: f64, size: f64, seconds: f64) -> f64 {
        let kick = 2.0 * (self.random.f64() - 0.5) * size * seconds.sqrt();
        value + kick + (middle - value) * (0.05 * seconds).min(1.0)
    }
}

/// A press whose oil warms with its work and whose cooler fails now and then.
#[derive(Clone, Debug)]
pub struct Press {
    temperature: f64,
    setpoint: f64,
    running: bool,
    strokes: f64,
    last_code: u16,
    age: f64,
}

impl Press {
    const AMBIENT_C: f64 = 24.0;
    /// What the oil gains at full setpoint.
    const WORK_C: f64 = 60.0;
    /// What it gains beyond that while the cooler stands.
    const FAULT_C: f64 = 36.0;
    /// How fast it follows.
    const INERTIA_S: f64 = 12.0;
    /// The cooler runs, then stands, over and over. At the default setpoint the oil passes 80 degrees about 10 s
    /// after the cooler stops, and is below 75 again soon after it is back.
    const COOLED_S: f64 = 45.0;
    const COOLER_CYCLE_S: f64 = 75.0;
    /// The door opens for a moment in every so many seconds.
    const DOOR_CYCLE_S: f64 = 60.0;
    const DOOR_OPEN_S: f64 = 4.0;
    const STROKES_PER_S: f64 = 0.5;
    const MOTOR_W: f64 = 750.0;

    fn new() -> Self {
        Self { temperature: 40.0, setpoint: 50.0, running: true, strokes: 0.0, last_code: 0, age: 0.0 }
    }

    /// Oil temperature in degrees Celsius.
    pub fn temperature(&self) -> f64 {
        self.temperature
    }

    /// Force in percent of the largest.
    pub fn setpoint(&self) -> f64 {
        self.setpoint
    }

    /// Sets the force. What is no force is set to the nearest one; what is no number is passed over.
    pub fn set_setpoint(&mut self, percent: f64) {
        if !percent.is_nan() {
            self.setpoint = percent.clamp(0.0, 100.0);
        }
    }

    /// Whether it presses.
    pub fn running(&self) -> bool {
        self.running
    }

    /// Starts or stops it.
    pub fn set_running(&mut self, on: bool) {
        self.running = on;
    }

    /// Whether the door is open.
    pub fn door(&self) -> bool {
        self.age % Self::DOOR_CYCLE_S >= Self::DOOR_CYCLE_S - Self::DOOR_OPEN_S
    }

    /// Strokes since the last reset.
    pub fn strokes(&self) -> f64 {
        self.strokes.floor()
    }

    /// Sets the stroke counter back and keeps the code of whoever did it.
    pub fn reset(&mut self, code: u16) {
        self.strokes = 0.0;
        self.last_code = code;
    }

    /// The code of the last reset.
    pub fn last_code(&self) -> u16 {
        self.last_code
    }

    fn power(&self) -> f64 {
        if self.running { Self::MOTOR_W * self.setpoint / 100.0 } else { 0.0 }
    }

    fn advance(&mut self, seconds: f64) {
        self.age += seconds;
        let cooler_stands = self.age % Self::COOLER_CYCLE_S >= Self::COOLED_S;
        let mut target = Self::AMBIENT_C;
        if self.running {
            target += Self::WORK_C * self.setpoint / 100.0;
            target += if cooler_stands { Self::FAULT_C } else { 0.0 };
            self.strokes += Self::STROKES_PER_S * seconds;
        }
        self.temperature += (target - self.temperature) * (seconds / Self::INERTIA_S).min(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn the_same_seed_gives_the_same_plant() {
        let (mut one, mut other) = (Plant::new(7), Plant::new(7));
        for plant in [&mut one, &mut other] {
            plant.advance(seconds(100));
        }
        assert_eq!(format!("{one:?}"), format!("{other:?}"));
    }

    #[test]
    fn a_meter_shows_what_a_real_one_would() {
        let mut plant = Plant::new(1);
        let (mut energy, mut largest) = (plant.meter.energy(), 0.0_f64);
        for _ in 0..3600 {
            plant.advance(seconds(1));
            let meter = &plant.meter;
            assert!((220.0..240.0).contains(&meter.voltage()), "{} V", meter.voltage());
            assert!((49.8..50.2).contains(&meter.frequency()), "{} Hz", meter.frequency());
            assert!(meter.energy() > energy);
            let apparent = meter.voltage() * meter.current();
            assert!((apparent * meter.power_factor() - meter.active_power()).abs() < 1e-6);
            energy = meter.energy();
            largest = largest.max(meter.active_power());
        }
        assert!(largest > 1900.0, "the kettle was on");
    }

    #[test]
    fn the_press_gets_too_hot_within_two_minutes_and_recovers() {
        let mut plant = Plant::new(1);
        let (mut crossings, mut hot) = (0, false);
        for _ in 0..600 {
            plant.advance(seconds(1));
            let temperature = plant.press.temperature();
            if !hot && temperature > 80.0 {
                crossings += 1;
                hot = true;
            }
            hot &= temperature >= 75.0;
            assert!(crossings > 0 || plant.press.age < 120.0);
        }
        assert_eq!(crossings, 8, "once in each cycle of the cooler");
    }

    #[test]
    fn a_stopped_press_cools_down_and_counts_nothing() {
        let mut plant = Plant::new(1);
        plant.advance(seconds(30));
        assert!(plant.press.strokes() > 0.0);
        plant.press.set_running(false);
        plant.press.reset(4711);
        plant.advance(seconds(300));
        assert!(plant.press.temperature() < 25.0);
        assert!(plant.press.strokes() < 1.0);
        assert_eq!(plant.press.last_code(), 4711);
    }

    #[test]
    fn the_door_opens_now_and_then() {
        let mut plant = Plant::new(1);
        let open = (0..240).filter(|_| {
            plant.advance(seconds(1));
            plant.press.door()
        });
        assert_eq!(open.count(), 16);
    }

    #[test]
    fn a_setpoint_is_never_out_of_range() {
        let mut press = Press::new();
        for (written, kept) in [(20.0, 20.0), (-1.0, 0.0), (1e9, 100.0), (f64::NAN, 100.0)] {
            press.set_setpoint(written);
            assert!((press.setpoint() - kept).abs() < f64::EPSILON, "{written}");
        }
    }
}
