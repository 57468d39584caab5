//! Pure protocols: bytes in, frames out. They know neither devices nor dialects, no socket and no clock.

pub mod modbus;
pub mod pcapng;
pub mod sockjs;
pub mod stomp;
