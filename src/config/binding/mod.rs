//! How products are bound to hardware, as the configuration writes it: one file for each kind of driver.

pub(super) mod modbus;
pub(super) mod mqtt;
