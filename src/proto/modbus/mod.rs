//! Modbus: frames, the plan of grouped reads, and the schedule of a bus. Knows registers, not devices.
